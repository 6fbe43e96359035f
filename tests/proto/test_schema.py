import csv
import subprocess
import sys
from pathlib import Path

import paths
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorSet

import siamese_proto.proto
from siamese_proto.proto import schema

PROTO = Path(siamese_proto.proto.__file__).parent
ROOT = paths.ROOT
# Our own additions, which Caffe's table does not have.
OWN_LAYERS = ("TripletLoss", "CenterLoss", "Distance", "Normalize", "Norm", "Permute", "Padding")
OWN_MESSAGES = {
    "ResumeState",
    "DataPosition",
    "BestScore",
    "CarriedState",
    "PairDataParameter",
    *(f"{name}Parameter" for name in OWN_LAYERS),
}
OWN_ENUMS = {"ContrastiveLossParameter.Label", "ContrastiveLossParameter.Normalization"}
OWN_FIELDS = {
    ("SolverState", "resume"),
    ("SolverParameter", "warmup_iter"),
    ("ContrastiveLossParameter", "label"),
    ("ContrastiveLossParameter", "normalization"),
    ("LayerParameter", "triplet_loss_param"),
    *(("LayerParameter", f"{name.lower()}_param") for name in OWN_LAYERS[2:]),
    ("LayerParameter", "center_loss_param"),
    ("LayerParameter", "pair_data_param"),
}


def _rows() -> set[tuple[str, ...]]:
    path = paths.GOLDEN / "caffe_schema.tsv"
    with path.open(newline="") as file:
        return {tuple(row) for row in list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[1:]}


def _described() -> set[tuple[str, ...]]:
    """Our schema in the form of the table, read from the descriptor set rather than from the loaded classes."""

    described = FileDescriptorSet.FromString((PROTO / "caffe.desc").read_bytes())
    rows: set[tuple[str, ...]] = set()
    for file in described.file:
        for enum in file.enum_type:
            rows |= {("enum", enum.name, value.name, str(value.number), "", "", "", "") for value in enum.value}
        for message in file.message_type:
            if message.name in OWN_MESSAGES:
                continue
            for enum in message.enum_type:
                name = f"{message.name}.{enum.name}"
                if name not in OWN_ENUMS:
                    rows |= {("enum", name, value.name, str(value.number), "", "", "", "") for value in enum.value}
            for field in message.field:
                if (message.name, field.name) not in OWN_FIELDS:
                    rows.add(_field_row(message.name, field))
    return rows


def _field_row(message: str, field: FieldDescriptorProto) -> tuple[str, ...]:
    label = {1: "optional", 2: "required", 3: "repeated"}[field.label]
    referred = field.type_name.removeprefix(".caffe.")
    kind = FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    kind = {"message": referred, "enum": f"enum {referred}"}.get(kind, kind)
    packed = "packed" if field.options.packed else ""
    default = _default(field, kind) if field.HasField("default_value") else ""
    return ("field", message, field.name, str(field.number), label, kind, default, packed)


def _default(field: FieldDescriptorProto, kind: str) -> str:
    value = field.default_value
    if kind in ("float", "double"):
        return repr(float(value))
    if kind == "bool":
        return value.capitalize()
    return repr(value) if kind == "string" else value


def _as_numbers(rows: set[tuple[str, ...]]) -> set[tuple[str, ...]]:
    """Float defaults to seven digits: the table has them as float32 prints, the schema as they were written."""
    return {(*row[:6], f"{float(row[6]):.6g}" if row[5] == "float" and row[6] else row[6], row[7]) for row in rows}


def test_every_message_field_enum_and_default_is_that_of_caffe() -> None:
    ours, caffe = _as_numbers(_described()), _as_numbers(_rows())
    assert len(caffe) > 400
    assert ours - caffe == set()
    assert caffe - ours == set()


def test_own_additions_stand_beyond_the_numbers_of_forks() -> None:
    for message, name in OWN_FIELDS:
        field = getattr(schema, message).DESCRIPTOR.fields_by_name[name]
        assert isinstance(field, FieldDescriptor)
        assert field.number >= 10000


def test_loaded_classes_are_those_of_the_descriptor_set() -> None:
    described = FileDescriptorSet.FromString((PROTO / "caffe.desc").read_bytes())
    for file in described.file:
        for message in file.message_type:
            loaded: Descriptor = getattr(schema, message.name).DESCRIPTOR
            assert {field.name: field.number for field in loaded.fields} == {f.name: f.number for f in message.field}
            enums: list[EnumDescriptor] = list(loaded.enum_types)
            assert [enum.name for enum in enums] == [enum.name for enum in message.enum_type]


def test_descriptor_set_and_types_are_what_the_tool_makes_of_the_schema(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; sys.path.insert(0, sys.argv[1]); import compile_schema;"
        "compile_schema.compile_schema(pathlib.Path(sys.argv[2]))"
    )
    subprocess.run([sys.executable, "-c", code, str(ROOT / "tools"), str(tmp_path)], check=True)
    made = FileDescriptorSet.FromString((tmp_path / "caffe.desc").read_bytes())
    assert made == FileDescriptorSet.FromString((PROTO / "caffe.desc").read_bytes())
    assert (tmp_path / "schema.pyi").read_text() == (PROTO / "schema.pyi").read_text()
