"""Draws the routing tables of a PanGu-Sigma model, as docs/PANGU_SIGMA.md says: fixed by the seed, the
layer, the domain's name and the token id, so that the same text gives the same table anywhere, and
a domain's table does not depend on its neighbours. Needs numpy and xxhash."""
import math
import struct

import numpy as np
import xxhash


def keys_of(seed, layer, name, vocab, entry):
    """[vocab] uint64, in token order"""
    text = seed.encode()
    name_hash = xxhash.xxh3_64_intdigest(name.encode()) & 0xFFFFFFFF
    keys = np.empty(vocab, np.uint64)
    for token in range(vocab):
        packed = struct.pack("<4I", layer, name_hash, token, entry)
        keys[token] = xxhash.xxh3_64_intdigest(text, seed=xxhash.xxh3_64_intdigest(packed))
    return keys


def first_experts(keys, n, counts):
    """[vocab] the expert of each token: in turn in the order of the keys, or, with counts, each to the
    expert with the smallest sum so far, the most frequent token first."""
    vocab = len(keys)
    expert = np.empty(vocab, np.int64)
    if counts is None:
        expert[np.argsort(keys, kind="stable")] = np.arange(vocab) % n
        return expert
    sums = [0] * n
    for token in np.lexsort((keys, -np.asarray(counts, np.int64))):
        least = sums.index(min(sums))
        expert[token] = least
        sums[least] += int(counts[token])
    return expert


def draw(seed, layer, name, n, vocab, k=1, counts=None):
    """The table of one layer and domain of n experts: uint16 [vocab], or [vocab, k] for k > 1."""
    if not 1 <= k <= n:
        raise ValueError(f"domain {name}: {k} experts a token of a group of {n}")
    first = first_experts(keys_of(seed, layer, name, vocab, 0), n, counts)
    if k == 1:
        return first.astype(np.uint16)
    strides = np.array([s for s in range(1, n) if math.gcd(s, n) == 1])
    stride = strides[keys_of(seed, layer, name, vocab, 1) % np.uint64(len(strides))]
    entries = first[:, None] + np.arange(k) * stride[:, None]
    return (entries % n).astype(np.uint16)


def fill(model, counts=None):
    """Draws every table of a PanguSigmaForCausalLM in place; counts: {domain name: [vocab]} or None."""
    import torch
    config = model.config
    for number, layer in enumerate(model.model.layers):
        if not layer.sparse:
            continue
        table = [draw(config.routing_seed, number, domain["name"], domain["num_experts"],
                      config.vocab_size, config.num_experts_per_tok,
                      counts and counts[domain["name"]]) for domain in config.domains]
        layer.mlp.routing_table = torch.from_numpy(np.stack(table))
