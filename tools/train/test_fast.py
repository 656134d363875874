#!/usr/bin/env python3
"""Holds fast.py (bf16, fused) against tools/hf: the loss and every gradient must be as near to those of
the float32 model as the bf16 model's own are. Needs torch and a CPU with AVX-512 bf16."""
import torch
import torch.nn.functional as F

import fast
from corpora import DOMAINS
from model import build


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: p.grad.float().clone() for name, p in model.named_parameters()}


def plain(model, ids, domain):
    logits = model(ids[:, :-1], domain=domain).logits
    return F.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten())


def error(got, want):
    return max(float((got[n] - want[n]).norm() / want[n].norm()) for n in want)


def main():
    fast.start()
    torch.manual_seed(3)
    model = build()
    with torch.no_grad():  # no part may be zero, as it is at birth
        for p in model.parameters():
            p.add_(0.05 * torch.randn_like(p))
    model = model.bfloat16()
    ids = torch.randint(6, model.config.vocab_size, (len(DOMAINS), 321))
    domain = torch.arange(len(DOMAINS))
    mine = fast.loss_of(model, ids, domain)
    got = gradients(model, mine)
    rounded = gradients(model, plain(model, ids, domain))
    model = model.float()
    loss = plain(model, ids, domain)
    want = gradients(model, loss)
    print(f"loss {mine.item():.5f}, in float32 {loss.item():.5f}; gradients differ by "
          f"{error(got, want):.4f}, those of the bf16 modules by {error(rounded, want):.4f}")
    if abs(mine.item() - loss.item()) > 1e-3 or error(got, want) > 1.2 * error(rounded, want):
        raise SystemExit("fast.py computes something else")


if __name__ == "__main__":
    main()
