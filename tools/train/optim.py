"""The optimizer of sigma-tiny: Muon (momentum, orthogonalised by Newton-Schulz steps; Jordan et al.
2024) for the matrices of the blocks, Adam for embeddings and norms. The model computes in bf16; here
lie the float32 weights that its bf16 ones are roundings of.

Matrices of one shape are stepped together, as one batched product."""
import torch

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
TOGETHER = 10  # matrices in one product


def orthogonal(g, steps=5):
    """[n, rows, columns]: the nearest matrix with singular values near 1, roughly."""
    wide = g.shape[1] <= g.shape[2]
    x = g.bfloat16() if wide else g.bfloat16().transpose(1, 2).contiguous()
    x = x / (x.float().norm(dim=(1, 2), keepdim=True) + 1e-7).bfloat16()
    a, b, c = COEFFICIENTS
    for _ in range(steps):
        square = x @ x.transpose(1, 2)
        x = a * x + (b * square + c * square @ square) @ x
    return (x if wide else x.transpose(1, 2)).float()


class Group:
    """Parameters of one shape, stacked: weight and state are [n, *shape] in float32. copies: for each
    parameter its copies, one in each replica of the model; gradients are summed over them."""

    def __init__(self, copies, muon):
        self.copies, self.muon = copies, muon
        self.weight = torch.stack([same[0].detach().float() for same in copies])
        self.first = torch.zeros_like(self.weight)
        self.second = None if muon else torch.zeros_like(self.weight)

    def grad(self):
        """(gradients, [n] 1 where a parameter has one): experts that saw no token stand still."""
        grad, live = torch.zeros_like(self.weight), torch.zeros(len(self.copies))
        for i, same in enumerate(self.copies):
            for p in same:
                if p.grad is not None:
                    grad[i] += p.grad
                    live[i] = 1
        return grad, live.view(-1, *[1] * (grad.dim() - 1))

    def publish(self):
        for same, w in zip(self.copies, self.weight):
            for p in same:
                p.data.copy_(w)

    def step(self, muon_lr, adam_lr, decay, n_step):
        """Returns the square of the gradient's norm."""
        grad, live = self.grad()
        square = float(grad.square().sum())
        if self.muon:
            self.first.lerp_(grad, 0.05 * live)
            update = orthogonal(torch.lerp(grad, self.first, 0.95))
            lr = muon_lr * max(1.0, update.shape[1] / update.shape[2]) ** 0.5
            self.weight.mul_(1 - lr * decay * live)
        else:
            grad.mul_(min(1.0, 1.0 / (square ** 0.5 + 1e-6)))
            self.first.lerp_(grad, 0.1 * live)
            self.second.lerp_(grad.square(), 0.05 * live)
            scale = (self.second / (1 - 0.95 ** n_step)).sqrt() + 1e-8
            update = self.first / (1 - 0.9 ** n_step) / scale
            lr = adam_lr
        self.weight.sub_(lr * live * update)
        self.publish()
        return square


class Optimizer:
    def __init__(self, models, muon_lr=0.02, adam_lr=0.004, decay=0.02):
        self.muon_lr, self.adam_lr, self.decay, self.steps = muon_lr, adam_lr, decay, 0
        self.models, shapes = models, {}
        for (name, p), *others in zip(*(model.named_parameters() for model in models)):
            muon = p.dim() == 2 and "embed_tokens" not in name
            shapes.setdefault((muon, tuple(p.shape)), []).append((p, *(q for _, q in others)))
        self.groups = [Group(params[i:i + TOGETHER], muon) for (muon, _), params in shapes.items()
                       for i in range(0, len(params), TOGETHER)]

    def zero_grad(self):
        for model in self.models:
            model.zero_grad(set_to_none=True)

    @torch.no_grad()
    def step(self, rate, each=map):
        """One step at `rate` times the peak learning rates; each: a map over groups, perhaps by
        several threads. Returns the gradient's norm."""
        self.steps += 1
        largest_first = sorted(self.groups, key=lambda group: -group.weight.numel())
        squares = each(lambda group: self.step_group(group, rate), largest_first)
        return sum(squares) ** 0.5

    @torch.no_grad()
    def step_group(self, group, rate):
        return group.step(self.muon_lr * rate, self.adam_lr * rate, self.decay, self.steps)

    def state(self):
        return {"steps": self.steps, "groups": [(g.weight, g.first, g.second) for g in self.groups]}

    def load(self, state):
        self.steps = state["steps"]
        for group, (weight, first, second) in zip(self.groups, state["groups"]):
            group.weight, group.first, group.second = weight, first, second
            group.publish()

    @torch.no_grad()
    def copy(self, pairs):
        """Weights and state of parameters of the first model, each from another: [(to, from)]."""
        place = {id(same[0]): (g, i) for g in self.groups for i, same in enumerate(g.copies)}
        for to, source in pairs:
            (g, i), (h, j) = place[id(to)], place[id(source)]
            for name in ("weight", "first", "second"):
                if getattr(g, name) is not None:
                    getattr(g, name)[i] = getattr(h, name)[j]
        for group in self.groups:
            group.publish()
