#!/usr/bin/env python3
"""A quantised checkpoint is what it says: its integers and scales, unpacked here, make a float
checkpoint whose logits are those of the quantised one bit for bit in f32; in bf16, with either kind of
activations, the bits do not depend on workers, batch or instruction set; activations made integers cost
what rounding to 1/254 of a row's largest does, no more; and what cannot be is refused in words.
"""
import argparse
import json
import os
import shutil
import struct
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
from harness import TINY, Failure, main_of, read_file, run_sigmoe, write_json  # noqa: E402

MODELS = ["olmoe", "qwen3_moe", "qwen2_moe", "mixtral", "llama"]
IDS = "3,1,4,1,5,9,2,6,5,3,5,8,9,7"


def sigmoe(binary, *args, want=0, env=None):
    status, out, err = run_sigmoe(binary, args, env=env)
    if status != want:
        raise Failure(f"sigmoe {' '.join(map(str, args))}: exit {status}, wanted {want}: {err}")
    return out.decode(), err


def read_tensors(path):
    """{name: (dtype, shape, bytes)}"""
    data = read_file(path)
    n = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + n])
    base = 8 + n
    return {name: (e["dtype"], e["shape"], data[base + e["data_offsets"][0]:base + e["data_offsets"][1]])
            for name, e in header.items() if name != "__metadata__"}


def write_tensors(path, tensors):
    header, at = {}, 0
    width = {"I64": 0, "F32": 1, "I32": 1}  # widest first keeps every tensor aligned
    ordered = sorted(tensors.items(), key=lambda item: width.get(item[1][0], 2))
    for name, (dtype, shape, data) in ordered:
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for _, (_, _, data) in ordered:
            f.write(data)


def bf16(data):
    return [struct.unpack("<f", b"\0\0" + data[i:i + 2])[0] for i in range(0, len(data), 2)]


def unpack(packed, scale, shape):
    """Float32 bytes of the matrix, by the layout's description."""
    n, k = shape
    words = struct.unpack(f"<{packed[1][0] * packed[1][1]}I", packed[2])
    per_row, groups, scales = packed[1][1], scale[1][1], bf16(scale[2])
    bits = 4 if per_row == -(-k // 8) else 8
    each, mask, offset = 32 // bits, (1 << bits) - 1, 1 << (bits - 1)
    group = -(-(-(-k // groups)) // 32) * 32
    out = []
    for r in range(n):
        row = words[r * per_row:(r + 1) * per_row]
        for i in range(k):
            q = (row[i // each] >> (bits * (i % each)) & mask) - offset
            out.append(q * scales[r * groups + i // group])
    return struct.pack(f"<{n * k}f", *out)


def dequantise(source, target):
    """The quantised checkpoint as a float one; returns how many matrices were integers."""
    shutil.copytree(source, target)
    path = os.path.join(target, "model.safetensors")
    tensors, out, n = read_tensors(path), {}, 0
    for name, tensor in tensors.items():
        if name.endswith("_packed"):
            base = name[:-len("_packed")]
            shape = list(struct.unpack("<2q", tensors[base + "_shape"][2]))
            out[base] = ("F32", shape, unpack(tensor, tensors[base + "_scale"], shape))
            n += 1
        elif not name.endswith(("_scale", "_shape")):
            out[name] = tensor
    write_tensors(path, out)
    config = json.loads(read_file(os.path.join(target, "config.json")))
    del config["quantization_config"]
    write_json(os.path.join(target, "config.json"), config)
    return n


def logits(binary, model, tmp, *options, env=None):
    dump = os.path.join(tmp, "logits.f32")
    sigmoe(binary, "run", model, "--token-ids", IDS, "--max-tokens", "12", "--ignore-eos",
           "--dump-logits", dump, *options, env=env)
    return read_file(dump)


def check_model(binary, name, tmp):
    quantised, floats = os.path.join(tmp, name), os.path.join(tmp, name + "-floats")
    report = json.loads(sigmoe(binary, "quantize", os.path.join(TINY, name), "-o", quantised,
                               "--experts", "int4:32", "--dense", "int8:64", "--json")[0])
    n = dequantise(quantised, floats)
    classes = report["classes"]
    if n == 0 or classes["dense"]["relative_error"] > 0.01:
        raise Failure(f"{name}: {n} matrices of integers, {classes}")
    if name != "llama" and not 0.02 < classes["experts"]["relative_error"] < 0.2:
        raise Failure(f"{name}: experts lost {classes['experts']}")
    if logits(binary, quantised, tmp, "--precision", "f32") != \
            logits(binary, floats, tmp, "--precision", "f32"):
        raise Failure(f"{name}: f32 logits differ from those of the dequantised checkpoint")
    exact = floats_of(logits(binary, quantised, tmp, "--precision", "f32"))
    near, far = (check_bits(binary, name, quantised, floats, tmp, kind) for kind in ("bf16", "int8"))
    if near == far:
        raise Failure(f"{name}: --activations changes nothing")
    errors = [distance(floats_of(bits), exact) for bits in (near, far)]
    print(f"{name}: logits' distance from f32: activations bf16 {errors[0]:.5f}, int8 {errors[1]:.5f}")
    # In a model this small one row that goes to another expert is a tenth of all.
    if not (0 < errors[0] < 0.05 and 0 < errors[1] < 0.25):
        raise Failure(f"{name}: logits are {errors} away from those in f32")
    return quantised


def floats_of(data):
    return struct.unpack(f"<{len(data) // 4}f", data)


def distance(got, want):
    """Root mean square of the difference over that of what is wanted, over the prompt's logits."""
    n = len(got) * (IDS.count(",") + 1) // (IDS.count(",") + 12)
    return (sum((g - w) ** 2 for g, w in zip(got[:n], want)) / sum(w * w for w in want[:n])) ** 0.5


def check_bits(binary, name, quantised, floats, tmp, kind):
    activations = ["--activations", kind]
    calm = logits(binary, quantised, tmp, *activations)
    if calm == logits(binary, floats, tmp):
        raise Failure(f"{name}: in bf16 integers are exact and rounded floats are not; equal logits "
                      "say that the integers were not used")
    for isa in ("portable", "avx2", "avx512"):
        try:
            other = logits(binary, quantised, tmp, *activations, env={"SIGMOE_ISA": isa})
        except Failure as failure:
            if "SIGMOE_ISA" in str(failure):
                continue  # this CPU lacks it
            raise
        if other != calm:
            raise Failure(f"{name}: activations {kind}: other bits on {isa}")
    if name != "llama":
        for options in (["--workers", "3", "--transport", "tcp"], ["--prefill-chunk", "3"]):
            if logits(binary, quantised, tmp, *activations, *options) != calm:
                raise Failure(f"{name}: activations {kind}: other bits with {options}")
    return calm


def check_refusals(binary, quantised, tmp):
    def refused(words, *args):
        status, _, err = run_sigmoe(binary, args)
        if status <= 0 or words not in err:
            raise Failure(f"{args}: exit {status}, '{err.strip()}' lacks '{words}'")

    out = os.path.join(tmp, "out")
    refused("quantised already", "quantize", quantised, "-o", out)
    refused("nothing to do", "quantize", os.path.join(TINY, "olmoe"), "-o", out, "--experts", "none",
            "--dense", "none")
    refused("give int8, int4 or none", "quantize", os.path.join(TINY, "olmoe"), "-o", out,
            "--experts", "int3")
    refused("give int8, int4 or none", "quantize", os.path.join(TINY, "olmoe"), "-o", out,
            "--experts", "int4:48")
    if os.path.exists(out):
        raise Failure("a refused quantize left something behind")
    for what, change, words in (
            ("format", lambda c, t: c["quantization_config"].update(format="marlin"), "marlin"),
            ("scale", lambda c, t: t.pop(next(n for n in t if n.endswith("_scale"))),
             "weight_scale beside it is missing"),
            ("width", narrow, "neither that of 4 nor of 8 bits")):
        bad = os.path.join(tmp, "bad-" + what)
        shutil.copytree(quantised, bad)
        config = json.loads(read_file(os.path.join(bad, "config.json")))
        tensors = read_tensors(os.path.join(bad, "model.safetensors"))
        change(config, tensors)
        write_json(os.path.join(bad, "config.json"), config)
        write_tensors(os.path.join(bad, "model.safetensors"), tensors)
        refused(words, "run", bad, "--token-ids", "1", "--max-tokens", "1")


def narrow(_, tensors):
    name = next(n for n in tensors if n.endswith("_packed"))
    dtype, (rows, cols), data = tensors[name]
    keep = cols - 1
    tensors[name] = (dtype, [rows, keep],
                     b"".join(data[r * cols * 4:(r * cols + keep) * 4] for r in range(rows)))


def check(binary):
    with tempfile.TemporaryDirectory(prefix="sigmoe-quantize-") as tmp:
        for name in MODELS:
            quantised = check_model(binary, name, tmp)
            if name == "olmoe":
                check_refusals(binary, quantised, tmp)
    print(f"{len(MODELS)} models, integers as they say")


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--sigmoe", required=True)
    args = p.parse_args()
    main_of(lambda: check(args.sigmoe))


if __name__ == "__main__":
    main()
