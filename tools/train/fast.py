"""The forward pass and loss of sigma-tiny made fast on a CPU: the same function as tools/hf computes,
cut into bf16 matrix products, which torch does well, and the parts of kernels.py between them.

  - Products that share an input are one: q, k and v; gate and up.
  - Attention is products over blocks of queries, so that a causal half is mostly not computed; all
    heads share one key/value head.
  - Experts get their tokens sorted, as one product each.
  - The loss is computed in chunks, its gradient with it: no [token, vocab] array is ever whole."""
import torch

from kernels import call, compiled

BLOCK = 256  # queries in one product of attention
C = None     # the compiled kernels; see start()


def start():
    global C
    C = compiled()


def line(x):
    return x if x.is_contiguous() else x.contiguous()


class AddNorm(torch.autograd.Function):
    """(x + delta, its norm)"""

    @staticmethod
    def forward(ctx, x, delta, weight, eps):
        ctx.set_materialize_grads(False)
        total, y = torch.empty_like(x), torch.empty_like(x)
        inv = torch.empty(len(x))
        call(C.norm_forward, x, delta, weight, total, y, inv, *x.shape, eps)
        ctx.save_for_backward(total, weight, inv)
        ctx.delta = delta is not None
        return total, y

    @staticmethod
    def backward(ctx, grad_total, grad_y):
        total, weight, inv = ctx.saved_tensors
        grad, grad_weight = torch.empty_like(total), torch.zeros(total.shape[1])
        call(C.norm_backward, total, weight, inv, line(grad_y),
             None if grad_total is None else line(grad_total), grad, grad_weight, *total.shape)
        return grad, grad if ctx.delta else None, grad_weight.to(weight.dtype), None


class SwiGlu(torch.autograd.Function):
    @staticmethod
    def forward(ctx, gate_up):
        n, width = gate_up.shape[0], gate_up.shape[1] // 2
        h = gate_up.new_empty(n, width)
        call(C.swiglu_forward, gate_up, h, n, width)
        ctx.save_for_backward(gate_up)
        return h

    @staticmethod
    def backward(ctx, grad):
        gate_up, = ctx.saved_tensors
        out = torch.empty_like(gate_up)
        call(C.swiglu_backward, gate_up, line(grad), out, len(grad), grad.shape[1])
        return out


class Attention(torch.autograd.Function):
    """qkv [batch * length, (heads + 2) * dim] -> [batch * length, heads * dim]"""

    @staticmethod
    def forward(ctx, qkv, cos, sin, batch, heads):
        length, dim = len(qkv) // batch, qkv.shape[1] // (heads + 2)
        q = qkv.new_empty(batch, heads, length, dim)
        k, v = qkv.new_empty(batch, length, dim), qkv.new_empty(batch, length, dim)
        call(C.rotate, qkv, q, k, v, cos, sin, batch, length, heads, dim, 0)
        out, saved = torch.empty_like(q), []
        for first in range(0, length, BLOCK):
            end = min(first + BLOCK, length)
            p = torch.bmm(q[:, :, first:end].reshape(batch, -1, dim), k[:, :end].transpose(1, 2))
            call(C.softmax_forward, p, batch, heads, end - first, end, dim ** -0.5)
            out[:, :, first:end] = torch.bmm(p, v[:, :end]).view(batch, heads, -1, dim)
            saved.append(p)
        ctx.save_for_backward(q, k, v, cos, sin, *saved)
        return out.transpose(1, 2).reshape(batch * length, -1)

    @staticmethod
    def backward(ctx, grad):
        q, k, v, cos, sin, *saved = ctx.saved_tensors
        batch, heads, length, dim = q.shape
        grad = grad.view(batch, length, heads, dim).transpose(1, 2)
        grad_q, grad_k, grad_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for p, first in zip(saved, range(0, length, BLOCK)):
            end = min(first + BLOCK, length)
            up = grad[:, :, first:end].reshape(batch, -1, dim)
            part = q[:, :, first:end].reshape(batch, -1, dim)
            grad_v[:, :end] += torch.bmm(p.transpose(1, 2), up)
            score = torch.bmm(up, v[:, :end].transpose(1, 2))
            call(C.softmax_backward, p, score, batch, heads, end - first, end, dim ** -0.5)
            grad_q[:, :, first:end] = torch.bmm(score, k[:, :end]).view(batch, heads, -1, dim)
            grad_k[:, :end] += torch.bmm(score.transpose(1, 2), part)
        out = q.new_empty(batch * length, (heads + 2) * dim)
        call(C.rotate, out, grad_q, grad_k, grad_v, cos, sin, batch, length, heads, dim, 1)
        return out, None, None, None, None


class ChunkedLoss(torch.autograd.Function):
    """Sum of -log p(target) over rows; the gradients are computed in the forward pass."""

    @staticmethod
    def forward(ctx, x, weight, target, chunk):
        grad_x, grad_weight = torch.empty_like(x), torch.zeros(weight.shape)
        loss = torch.empty(len(x))
        for first in range(0, len(x), chunk):
            part = x[first:first + chunk]
            logits = part @ weight.t()
            call(C.loss_and_grad, logits, target[first:], loss[first:], *logits.shape)
            grad_x[first:first + chunk] = logits @ weight
            grad_weight += logits.t() @ part
        ctx.save_for_backward(grad_x, grad_weight)
        return loss.sum()

    @staticmethod
    def backward(ctx, grad):
        grad_x, grad_weight = ctx.saved_tensors
        return grad_x * grad.to(grad_x.dtype), (grad_weight * grad).to(grad_x.dtype), None, None


def ffn(y, mlp):
    gate_up = torch.cat((mlp.gate_proj.weight, mlp.up_proj.weight))
    return SwiGlu.apply(y @ gate_up.t()) @ mlp.down_proj.weight.t()


def experts(y, mlp, choice):
    order = choice.argsort(stable=True)
    counts = choice.bincount(minlength=len(mlp.experts)).tolist()
    done = [ffn(part, expert)
            for expert, part in zip(mlp.experts, y[order].split(counts)) if len(part)]
    back = torch.empty_like(order)
    back[order] = torch.arange(len(order))
    return torch.cat(done)[back]


def rotation(config, length):
    half = torch.arange(0, config.head_dim, 2).float() / config.head_dim
    angle = torch.arange(length).float()[:, None] * config.rope_theta ** -half
    return angle.cos(), angle.sin()


def hidden(model, ids, domain):
    """[batch * length, hidden] behind the final norm; domain [batch] indices."""
    config, inner = model.config, model.model
    eps = config.rms_norm_eps
    cos, sin = rotation(config, ids.shape[1])
    x, delta = inner.embed_tokens(ids).flatten(0, 1), None
    for layer in inner.layers:
        a, mlp = layer.self_attn, layer.mlp
        x, y = AddNorm.apply(x, delta, layer.input_layernorm.weight, eps)
        wqkv = torch.cat((a.q_proj.weight, a.k_proj.weight, a.v_proj.weight))
        out = Attention.apply(y @ wqkv.t(), cos, sin, len(ids), config.num_attention_heads)
        delta = out @ a.o_proj.weight.t()
        x, y = AddNorm.apply(x, delta, layer.post_attention_layernorm.weight, eps)
        delta = experts(y, mlp, mlp.choose(ids, domain).flatten()) if layer.sparse else ffn(y, mlp)
    return AddNorm.apply(x, delta, inner.norm.weight, eps)[1]


def loss_of(model, ids, domain, chunk=256):
    """Mean loss of ids [batch, length + 1] with domain [batch]; the model is in bf16."""
    x = hidden(model, line(ids[:, :-1]), domain)
    target = ids[:, 1:].reshape(-1)
    return ChunkedLoss.apply(x, model.lm_head.weight, target, chunk) / len(target)
