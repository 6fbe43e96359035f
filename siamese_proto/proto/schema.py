"""The message classes of caffe.proto, for example `schema.NetParameter`.

They are made when this module is imported, from the descriptor set that tools/compile_schema.py wrote, in a descriptor
pool of their own: no generated code that is tied to one release of protobuf, and no clash with a `caffe_pb2` that the
user has loaded. `schema.pyi` (generated) tells type checkers what is here.
"""

from __future__ import annotations

from importlib import resources

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory


def _load() -> None:
    described = descriptor_pb2.FileDescriptorSet.FromString(
        resources.files(__package__).joinpath("caffe.desc").read_bytes()
    )
    pool = descriptor_pool.DescriptorPool()
    for file in described.file:
        pool.Add(file)  # type: ignore[no-untyped-call]  # the stubs of protobuf leave it without types
        for message in file.message_type:
            name = f"{file.package}.{message.name}"
            globals()[message.name] = message_factory.GetMessageClass(pool.FindMessageTypeByName(name))
        for enum in file.enum_type:
            globals().update({value.name: value.number for value in enum.value})


_load()
