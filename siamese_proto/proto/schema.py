"""The message classes of caffe.proto, for example `schema.NetParameter`.

They are created at import from the descriptor set that tools/compile_schema.py writes, in a separate descriptor pool.
So no generated code depends on a release of protobuf, and a `caffe_pb2` that the user imports does not clash. The
generated file `schema.pyi` lists the classes for type checkers.
"""

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
