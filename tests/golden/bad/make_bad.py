"""Builds the malformed checkpoints that cases.json names, each from a good one of fixtures/tiny.

A case either changes config.json (`set`, `drop`, `text`) or names a function below (`build`), which
gets the folder of the copy. Nothing is committed as a file: what is wrong with each is read here.
"""
import json
import os
import shutil
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "suite"))
from harness import (TINY, read_file, safetensors_bytes, safetensors_read,  # noqa: E402
                     safetensors_write, write_json)

WEIGHTS, INDEX, CONFIG = "model.safetensors", "model.safetensors.index.json", "config.json"
NORM = "model.norm.weight"
SHARDS = [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]


def put(folder, name, raw):
    with open(os.path.join(folder, name), "wb") as f:
        f.write(raw)


def weights(folder, change, name=WEIGHTS):
    """Rewrites a safetensors file as change(bytes)."""
    put(folder, name, change(read_file(os.path.join(folder, name))))


def header(folder, edit):
    """Rewrites the header of model.safetensors: edit(header dict), the data stays."""
    put(folder, WEIGHTS, safetensors_bytes(safetensors_read(os.path.join(folder, WEIGHTS)), edit))


def header_text(folder, text):
    """Puts other bytes where the header is, its length told truly."""
    def change(raw):
        (n,) = struct.unpack_from("<Q", raw)
        return struct.pack("<Q", len(text)) + text + raw[8 + n:]
    weights(folder, change)


def header_length(folder, n):
    weights(folder, lambda raw: struct.pack("<Q", n) + raw[8:])


def norm_entry(**entry):
    """A build that sets keys of the final norm's entry; None drops one."""
    def edit(head):
        head[NORM] = {k: v for k, v in {**head[NORM], **entry}.items() if v is not None}
    return lambda folder: header(folder, edit)


def norm_offsets(change):
    def edit(head):
        head[NORM]["data_offsets"] = change(*head[NORM]["data_offsets"])
    return lambda folder: header(folder, edit)


def without(name):
    def build(folder):
        path = os.path.join(folder, WEIGHTS)
        tensors = safetensors_read(path)
        del tensors[name]
        safetensors_write(path, tensors)
    return build


def reshaped(name, change):
    def edit(head):
        head[name]["shape"] = change(head[name]["shape"])
    return lambda folder: header(folder, edit)


def index(edit):
    """A build that edits the index: edit(the whole object)."""
    def build(folder):
        path = os.path.join(folder, INDEX)
        with open(path, encoding="utf-8") as f:
            value = json.load(f)
        write_json(path, edit(value) or value)
    return build


def index_shard(name):
    def edit(value):
        value["weight_map"][NORM] = name
    return index(edit)


def replaced_by_folder(name):
    def build(folder):
        os.remove(os.path.join(folder, name))
        os.mkdir(os.path.join(folder, name))
    return build


def removed(name):
    return lambda folder: os.remove(os.path.join(folder, name))


def config_truncated(folder):
    weights(folder, lambda raw: raw[:len(raw) // 2], CONFIG)


def config_not_utf8(folder):
    weights(folder, lambda raw: raw.replace(b'"silu"', b'"\xff\xfe"'), CONFIG)


def config_deep(folder):
    put(folder, CONFIG, b'{"a":' + b"[" * 200000 + b"]" * 200000 + b"}")


def config_real_overflow(folder):
    weights(folder, lambda raw: raw.replace(b'"rope_theta": 10000.0', b'"rope_theta": 1e400'), CONFIG)


def header_duplicate_name(folder):
    """The final norm twice; the second time it is the bytes of another tensor."""
    def change(raw):
        (n,) = struct.unpack_from("<Q", raw)
        head = json.loads(raw[8:8 + n])
        entry = json.dumps(head["model.layers.0.input_layernorm.weight"])
        text = raw[8:8 + n].rstrip()[:-1] + f',"{NORM}":{entry}}}'.encode()
        text += b" " * (-len(text) % 8)
        return struct.pack("<Q", len(text)) + text + raw[8 + n:]
    weights(folder, change)


def header_nul_in_name(folder):
    def edit(head):
        head["model.norm.weight\0x"] = head.pop(NORM)
    header(folder, edit)


def header_not_utf8(folder):
    def change(raw):
        return raw.replace(b'"model.norm.weight"', b'"model.norm.w\xff\xfeght"', 1)
    weights(folder, change)


def header_trailing(folder):
    """A second object behind the first one."""
    def change(raw):
        (n,) = struct.unpack_from("<Q", raw)
        return struct.pack("<Q", n + 8) + raw[8:8 + n] + b'{"a":1} ' + raw[8 + n:]
    weights(folder, change)


def header_over_limit(folder):
    """A header of 100 MB and one byte, sparse on disk: refused by its length, not by its text."""
    n = 100_000_001
    with open(os.path.join(folder, WEIGHTS), "wb") as f:
        f.write(struct.pack("<Q", n))
        f.truncate(8 + n)


def tensors_overlap(folder):
    """The final norm lies on another tensor of its size; its own bytes stay unclaimed."""
    def edit(head):
        head[NORM]["data_offsets"] = head["model.layers.0.input_layernorm.weight"]["data_offsets"]
    header(folder, edit)


def tensors_gap(folder):
    """64 bytes between the first tensor and the rest that belong to nobody."""
    path = os.path.join(folder, WEIGHTS)
    tensors = safetensors_read(path)
    first = next(iter(tensors))
    cut = len(tensors[first][2])

    def edit(head):
        for name, entry in head.items():
            if name != first:
                entry["data_offsets"] = [at + 64 for at in entry["data_offsets"]]
    raw = safetensors_bytes(tensors, edit)
    (n,) = struct.unpack_from("<Q", raw)
    put(folder, WEIGHTS, raw[:8 + n + cut] + bytes(64) + raw[8 + n + cut:])


def shape_transposed(folder):
    reshaped("model.layers.0.block_sparse_moe.experts.3.w1.weight", lambda s: s[::-1])(folder)


TABLE = "model.layers.{}.mlp.routing_table"


def table(change):
    """A build that rewrites the last layer's routing table: change(rows), a list of each domain's
    entries, all k of a token side by side."""
    def build(folder):
        path = os.path.join(folder, WEIGHTS)
        tensors = safetensors_read(path)
        with open(os.path.join(folder, CONFIG), encoding="utf-8") as f:
            config = json.load(f)
        name = TABLE.format(config["num_hidden_layers"] - 1)
        dtype, shape, raw = tensors[name]
        flat = list(struct.unpack(f"<{len(raw) // 2}H", raw))
        n = len(flat) // shape[0]
        rows = [flat[i * n:(i + 1) * n] for i in range(shape[0])]
        change(rows)
        flat = [entry for row in rows for entry in row]
        tensors[name] = (dtype, [len(rows), *shape[1:-1], shape[-1] * len(rows[0]) // n],
                         struct.pack(f"<{len(flat)}H", *flat))
        safetensors_write(path, tensors)
    return build


def table_out_of_range(rows):
    rows[-1][7] = 999


def table_unbalanced(rows):
    rows[0][:] = [0] * len(rows[0])


def table_truncated(rows):
    rows.pop()


def table_of_other_type(folder):
    path = os.path.join(folder, WEIGHTS)
    tensors = safetensors_read(path)
    name = next(n for n in tensors if n.endswith("routing_table"))
    tensors[name] = ("F16", *tensors[name][1:])
    safetensors_write(path, tensors)


def table_absent(folder):
    path = os.path.join(folder, WEIGHTS)
    tensors = safetensors_read(path)
    del tensors[next(n for n in tensors if n.endswith("routing_table"))]
    safetensors_write(path, tensors)


def index_tensor_twice(folder):
    """The final norm also lies in a second shard."""
    first, last = (os.path.join(folder, SHARDS[i]) for i in (0, 2))
    for path in (first, last):
        tensors = safetensors_read(path)
        tensors.setdefault(NORM, ("BF16", [60], bytes(120)))
        safetensors_write(path, tensors)


def index_tensor_elsewhere(folder):
    """The index says another shard than the one that holds it."""
    def edit(value):
        there = value["weight_map"][NORM]
        value["weight_map"][NORM] = next(s for s in SHARDS if s != there)
    index(edit)(folder)


def drop_map(value):
    del value["weight_map"]


def map_array(value):
    value["weight_map"] = list(value["weight_map"])


def map_empty(value):
    value["weight_map"] = {}


BUILDS = {
    "config_absent": removed(CONFIG),
    "config_is_folder": replaced_by_folder(CONFIG),
    "config_truncated": config_truncated,
    "config_not_utf8": config_not_utf8,
    "config_deep": config_deep,
    "config_real_overflow": config_real_overflow,
    "weights_absent": removed(WEIGHTS),
    "weights_is_folder": replaced_by_folder(WEIGHTS),
    "weights_empty": lambda folder: put(folder, WEIGHTS, b""),
    "weights_seven_bytes": lambda folder: weights(folder, lambda raw: raw[:7]),
    "header_cut": lambda folder: weights(folder, lambda raw: raw[:400]),
    "header_longer_than_file": lambda folder: header_length(folder, 50_000_000),
    "header_length_max": lambda folder: header_length(folder, 2**64 - 1),
    "header_length_wraps": lambda folder: header_length(folder, 2**64 - 8),
    "header_over_limit": header_over_limit,
    "header_empty": lambda folder: header_text(folder, b""),
    "header_no_tensors": lambda folder: header_text(folder, b"{}"),
    "header_not_json": lambda folder: header_text(folder, b"{not json"),
    "header_array": lambda folder: header_text(folder, b"[]"),
    "header_deep": lambda folder: header_text(
        folder, b'{"a":' + b"[" * 200000 + b"]" * 200000 + b"}"),
    "header_not_utf8": header_not_utf8,
    "header_nul_in_name": header_nul_in_name,
    "header_duplicate_name": header_duplicate_name,
    "header_trailing": header_trailing,
    "tensor_not_object": lambda folder: header(folder, lambda h: h.update({NORM: 1})),
    "tensor_no_dtype": norm_entry(dtype=None),
    "tensor_no_shape": norm_entry(shape=None),
    "tensor_no_offsets": norm_entry(data_offsets=None),
    "dtype_unknown": norm_entry(dtype="F99"),
    "dtype_number": norm_entry(dtype=32),
    "dtype_integer": norm_entry(dtype="I32"),
    "dtype_of_other_size": norm_entry(dtype="F16"),
    "shape_overflow": norm_entry(shape=[2**33, 2**33]),
    "shape_overflow_bytes": norm_entry(shape=[2**62 + 36]),
    "shape_negative": norm_entry(shape=[-6, -6]),
    "shape_fraction": norm_entry(shape=[36.5]),
    "shape_string": norm_entry(shape=["36"]),
    "shape_many_dims": norm_entry(shape=[36] + [1] * 70),
    "shape_not_bytes": norm_entry(shape=[35]),
    "offsets_reversed": norm_offsets(lambda a, b: [b, a]),
    "offsets_negative": norm_offsets(lambda a, b: [a - b, 0]),
    "offsets_outside": norm_offsets(lambda a, b: [a + 2**40, b + 2**40]),
    "offsets_huge": norm_offsets(lambda a, b: [a, 2**64]),
    "offsets_three": norm_offsets(lambda a, b: [a, b, b]),
    "tensors_overlap": tensors_overlap,
    "tensors_gap": tensors_gap,
    "data_cut": lambda folder: weights(folder, lambda raw: raw[:-1]),
    "data_trailing": lambda folder: weights(folder, lambda raw: raw + b"x"),
    "tensor_missing": without("model.layers.1.self_attn.k_proj.weight"),
    "expert_missing": without("model.layers.2.block_sparse_moe.experts.4.w2.weight"),
    "head_missing": without("lm_head.weight"),
    "bias_missing": without("model.layers.1.self_attn.q_proj.bias"),
    "shape_transposed": shape_transposed,
    "shape_flat": reshaped("model.layers.0.self_attn.q_proj.weight", lambda s: [s[0] * s[1]]),
    "table_out_of_range": table(table_out_of_range),
    "table_unbalanced": table(table_unbalanced),
    "table_truncated": table(table_truncated),
    "table_of_other_type": table_of_other_type,
    "table_absent": table_absent,
    "index_not_json": lambda folder: put(folder, INDEX, b'{"weight_map": {'),
    "index_no_map": index(drop_map),
    "index_map_array": index(map_array),
    "index_map_empty": index(map_empty),
    "index_shard_number": index_shard(3),
    "index_shard_absent": index_shard("model-00004-of-00003.safetensors"),
    "index_shard_removed": removed(SHARDS[1]),
    "index_shard_parent": index_shard("../outside.safetensors"),
    "index_shard_absolute": index_shard("/tmp/outside.safetensors"),
    "index_shard_empty_name": index_shard(""),
    "index_tensor_elsewhere": index_tensor_elsewhere,
    "index_tensor_twice": index_tensor_twice,
    "shard_cut": lambda folder: weights(folder, lambda raw: raw[:-2], SHARDS[2]),
}


def copy_good(base, folder):
    source = os.path.join(TINY, base)
    os.makedirs(folder)
    for name in os.listdir(source):
        if not name.startswith("expected"):
            shutil.copyfile(os.path.join(source, name), os.path.join(folder, name))


def build(case, folder):
    """Makes one case of cases.json at `folder`, which does not exist yet."""
    copy_good(case.get("base", "mixtral"), folder)
    path = os.path.join(folder, CONFIG)
    if "build" in case:
        BUILDS[case["build"]](folder)
    elif "text" in case:
        put(folder, CONFIG, case["text"].encode())
    else:
        with open(path, encoding="utf-8") as f:
            config = json.load(f)
        config.update(case.get("set", {}))
        for key in case.get("drop", []):
            del config[key]
        write_json(path, config)
