"""The project's services as an independent client sees them: python3-grpcio and the .proto files, none of our own code.

    memory = Service("proto/memory.proto", "farswap.memory.v1.MemoryServer", "127.0.0.1:7770")
    capacity = memory.GetCapacity()
    for event in memory.Watch(lease_id=..., token=...): ...

Errors are grpc.RpcError, with code() and details().
"""
import os
import subprocess
import tempfile

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

SOURCE_DIR = os.environ.get("FARSWAP_SOURCE_DIR", os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
CALL_TIMEOUT_S = 20


def _load(proto):
    """The file descriptors of one .proto file in a pool of their own."""
    pool = descriptor_pool.DescriptorPool()
    with tempfile.NamedTemporaryFile(suffix=".pb") as out:
        subprocess.run(["protoc-c", "--include_imports", "--descriptor_set_out=" + out.name, "-I", SOURCE_DIR,
                        os.path.join(SOURCE_DIR, proto)], check=True)
        for file in descriptor_pb2.FileDescriptorSet.FromString(out.read()).file:
            pool.Add(file)
    return pool


class Service:
    """One service at one address. Each method takes the request's fields as keywords and returns the reply, or, for a
    method that streams, the grpc call: an iterator that can be cancelled."""

    def __init__(self, proto, name, address):
        pool = _load(proto)
        # A channel of its own: a dead server of an earlier test must not be remembered.
        self.channel = grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1),
                                                              ("grpc.enable_http_proxy", 0)])
        self.name = name
        factory = message_factory.MessageFactory(pool)
        for method in pool.FindServiceByName(name).methods:
            setattr(self, method.name, self._method(factory, method))

    def _method(self, factory, method):
        request_class = factory.GetPrototype(method.input_type)
        reply_class = factory.GetPrototype(method.output_type)
        streams = next(m.server_streaming for m in self._declared(method) if m.name == method.name)
        kind = self.channel.unary_stream if streams else self.channel.unary_unary
        invoke = kind("/%s/%s" % (self.name, method.name), request_serializer=request_class.SerializeToString,
                      response_deserializer=reply_class.FromString)

        def call(timeout=None if streams else CALL_TIMEOUT_S, **fields):
            return invoke(request_class(**fields), timeout=timeout, wait_for_ready=True)

        return call

    @staticmethod
    def _declared(method):
        declared = descriptor_pb2.ServiceDescriptorProto()
        method.containing_service.CopyToProto(declared)
        return declared.method

    def raw(self, method, payload, timeout=CALL_TIMEOUT_S):
        """Any bytes as the request of any method; the reply's bytes."""
        return self.channel.unary_unary("/%s/%s" % (self.name, method))(payload, timeout=timeout)

    def close(self):
        self.channel.close()
