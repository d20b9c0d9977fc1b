-- Requests of one wrk run: bodies of a file, drawn at random, or each once.
--   wrk ... -s requests.lua URL -- FILE random|once NAME:VALUE...
-- The file has a body a line; NAME:VALUE are headers. Prints one line of JSON.

local bodies, sent, once = {}, 0, false
answered, degraded, failed = 0, 0, 0 -- global, so that done() can read them from the thread

local threads = {}

function setup(thread)
  table.insert(threads, thread)
end

function init(arguments)
  for body in io.lines(arguments[1]) do
    table.insert(bodies, body)
  end
  once = arguments[2] == "once"
  wrk.method = "POST"
  wrk.headers["Content-Type"] = "application/json"
  for index = 3, #arguments do
    local name, value = arguments[index]:match("^([^:]+):(.*)$")
    wrk.headers[name] = value
  end
  math.randomseed(os.time())
  for index, body in ipairs(bodies) do
    bodies[index] = wrk.format(nil, nil, nil, body)
  end
end

function request()
  sent = sent + 1
  if once then
    return bodies[(sent - 1) % #bodies + 1]
  end
  return bodies[math.random(#bodies)]
end

function response(status, headers)
  answered = answered + 1
  if status ~= 200 then
    failed = failed + 1
  end
  if headers["x-recommendation-degraded"] or headers["X-Recommendation-Degraded"] then
    degraded = degraded + 1
  end
  if once and answered == #bodies then
    wrk.thread:stop()
    io.write("all answered\n") -- wrk itself sleeps until its time is over, unless it is interrupted
    io.flush()
  end
end

function done(summary, latency)
  local thread = threads[1]
  local lost = summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout
  io.write(string.format(
    '\n{"requests": %d, "requests_per_second": %.1f, "p50_ms": %.2f, "p99_ms": %.2f, "max_ms": %.2f, '
      .. '"degraded": %d, "errors": %d}\n',
    thread:get("answered"), summary.requests / summary.duration * 1e6,
    latency:percentile(50) / 1000, latency:percentile(99) / 1000, latency.max / 1000,
    thread:get("degraded"), thread:get("failed") + lost))
end
