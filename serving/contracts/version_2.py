"""Version 2 of the protocol: the messages of `serving/contracts/messages.py` as they are."""

import msgspec

from serving.contracts.codec import Codec, encode_with_any_integer
from serving.contracts.messages import BatchRequest, BatchResponse

VERSION_2 = Codec(
    version=2,
    media_type="application/vnd.msgpack; version=2",
    encode_request=encode_with_any_integer,
    decode_request=msgspec.msgpack.Decoder(BatchRequest).decode,
    encode_response=msgspec.msgpack.Encoder().encode,
    decode_response=msgspec.msgpack.Decoder(BatchResponse).decode,
)
