"""A PanGu-Sigma model for Hugging Face transformers, as docs/PANGU_SIGMA.md of sigmoe describes it: a
dense decoder whose upper layers are sparse by Random Routed Experts. A sequence has a domain; the
domain selects a group of experts, and a fixed table selects each token's experts in the group.

The domain is config.default_domain unless `domain` is given, to forward() or generate(): a name, an
index, or a list of these with one for each sequence of the batch.

Lies beside the checkpoint and loads with trust_remote_code; needs transformers >= 4.57 (newer ones
call past_key_values `cache`; both names are taken)."""
import math

import torch
import torch.nn.functional as F
from torch import nn
from transformers import GenerationMixin, PreTrainedModel
from transformers.activations import ACT2FN
from transformers.cache_utils import DynamicCache
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from .configuration_pangu_sigma import PanguSigmaConfig


def domain_index(config, domain, batch, device):
    """[batch] int64 from a name, an index, a tensor, or a list of names and indices."""
    names = config.domain_names

    def one(value):
        if isinstance(value, str):
            if value not in names:
                raise ValueError(f"there is no domain '{value}'; domains are {', '.join(names)}")
            return names.index(value)
        if not 0 <= int(value) < len(names):
            raise ValueError(f"there is no domain {int(value)}; there are {len(names)}")
        return int(value)

    if domain is None:
        domain = config.default_domain
    if isinstance(domain, torch.Tensor):
        domain = domain.flatten().tolist()
    if not isinstance(domain, (list, tuple)):
        domain = [domain]
    found = torch.tensor([one(value) for value in domain], device=device)
    if len(found) not in (1, batch):
        raise ValueError(f"{len(found)} domains were given for {batch} sequences")
    return found.expand(batch)


class RMSNorm(nn.Module):
    def __init__(self, size, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x):
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * wide.to(x.dtype)


def norm_of(config):
    if config.block == "pangu_alpha":
        return nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
    return RMSNorm(config.hidden_size, config.rms_norm_eps)


# ---- rotary positions ------------------------------------------------------------------------------


def llama3_frequencies(inv, scaling):
    wave = 2 * math.pi / inv
    original = scaling["original_max_position_embeddings"]
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    smooth = ((original / wave - low) / (high - low)).clamp(0, 1)
    return (1 - smooth) * inv / scaling["factor"] + smooth * inv


def yarn_frequencies(inv, scaling, config, dim):
    original = scaling.get("original_max_position_embeddings") or config.max_position_embeddings
    theta = config.rope_theta

    def turn(n):
        return dim * math.log(original / (n * 2 * math.pi)) / (2 * math.log(theta))

    low, high = turn(scaling.get("beta_fast") or 32), turn(scaling.get("beta_slow") or 1)
    if scaling.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    ramp = (torch.arange(dim // 2).float() - low) / max(high - low, 0.001)
    keep = 1 - ramp.clamp(0, 1)
    attention = scaling.get("attention_factor")
    if attention is None:
        attention = 0.1 * math.log(scaling["factor"]) + 1 if scaling["factor"] > 1 else 1.0
    return inv / scaling["factor"] * (1 - keep) + inv * keep, attention


def rope_frequencies(config):
    """([head_dim / 2] inverse frequencies, the factor of cos and sin)"""
    dim = config.head_dim
    inv = 1.0 / config.rope_theta ** (torch.arange(0, dim, 2).float() / dim)
    scaling = config.rope_scaling or {}
    kind = scaling.get("rope_type") or scaling.get("type") or "default"
    if kind == "default":
        return inv, 1.0
    if kind == "linear":
        return inv / scaling["factor"], 1.0
    if kind == "llama3":
        return llama3_frequencies(inv, scaling), 1.0
    if kind == "yarn":
        return yarn_frequencies(inv, scaling, config, dim)
    raise ValueError(f"rope scaling '{kind}' is not known here; known are linear, llama3, yarn")


def rotation(config, position_ids, dtype):
    """(cos, sin), each [batch, 1, length, head_dim]"""
    with torch.device("cpu"):
        inv, factor = rope_frequencies(config)
    angle = position_ids[:, None, :, None].float() * inv.to(position_ids.device)
    angle = torch.cat((angle, angle), dim=-1)
    return (angle.cos() * factor).to(dtype), (angle.sin() * factor).to(dtype)


def rotate(x, cos, sin):
    low, high = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-high, low), dim=-1) * sin


# ---- the block -------------------------------------------------------------------------------------


class Attention(nn.Module):
    def __init__(self, config, layer):
        super().__init__()
        self.config, self.layer, self.dim = config, layer, config.head_dim
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        bias = getattr(config, "attention_bias", False) or config.block == "pangu_alpha"
        qkv_bias = bias or config.block == "qwen2"
        hidden = config.hidden_size
        self.q_proj = nn.Linear(hidden, self.heads * self.dim, bias=qkv_bias)
        self.k_proj = nn.Linear(hidden, self.kv_heads * self.dim, bias=qkv_bias)
        self.v_proj = nn.Linear(hidden, self.kv_heads * self.dim, bias=qkv_bias)
        self.o_proj = nn.Linear(self.heads * self.dim, hidden, bias=bias)
        self.q_norm = self.k_norm = None
        if config.block == "qwen3":
            self.q_norm = RMSNorm(self.dim, config.rms_norm_eps)
            self.k_norm = RMSNorm(self.dim, config.rms_norm_eps)

    def forward(self, x, query, rotary, mask, past_key_values):
        """x [batch, length, hidden]; query: what queries are projected from, of the same shape."""
        batch, length = x.shape[:2]
        q = self.q_proj(query).view(batch, length, self.heads, self.dim)
        k = self.k_proj(x).view(batch, length, self.kv_heads, self.dim)
        v = self.v_proj(x).view(batch, length, self.kv_heads, self.dim).transpose(1, 2)
        if self.q_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k = q.transpose(1, 2), k.transpose(1, 2)
        if rotary is not None:
            q, k = rotate(q, *rotary), rotate(k, *rotary)
        if past_key_values is not None:
            k, v = past_key_values.update(k, v, self.layer)
        if self.heads != self.kv_heads:
            share = self.heads // self.kv_heads
            k, v = k.repeat_interleave(share, dim=1), v.repeat_interleave(share, dim=1)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask,
                                             is_causal=mask is None and length > 1)
        return self.o_proj(out.transpose(1, 2).reshape(batch, length, -1))


class FeedForward(nn.Module):
    def __init__(self, config, width):
        super().__init__()
        pangu = config.block == "pangu_alpha"
        bias = pangu or getattr(config, "mlp_bias", False)
        self.gate_proj = None if pangu else nn.Linear(config.hidden_size, width, bias=bias)
        self.up_proj = nn.Linear(config.hidden_size, width, bias=bias)
        self.down_proj = nn.Linear(width, config.hidden_size, bias=bias)
        self.act = ACT2FN[config.hidden_act]

    def forward(self, x):
        if self.gate_proj is None:
            return self.down_proj(self.act(self.up_proj(x)))
        return self.down_proj(self.act(self.gate_proj(x)) * self.up_proj(x))


class RandomRoutedExperts(nn.Module):
    """Experts of all groups, group after group, and the table [domain, vocab(, k)] of the expert
    within the group. A model made from a configuration alone takes experts in turn; a checkpoint
    brings the table that was drawn for it."""

    def __init__(self, config):
        super().__init__()
        self.k = config.num_experts_per_tok
        sizes = [domain["num_experts"] for domain in config.domains]
        self.first = [sum(sizes[:d]) for d in range(len(sizes))]
        self.experts = nn.ModuleList(FeedForward(config, config.expert_intermediate_size)
                                     for _ in range(sum(sizes)))
        turn = torch.arange(config.vocab_size)[:, None] + torch.arange(self.k)
        table = torch.stack([turn % n for n in sizes]).to(torch.uint16)
        self.register_buffer("routing_table", table[..., 0] if self.k == 1 else table)

    def choose(self, input_ids, domain):
        """[n_token, k] experts of all tokens, flat"""
        table = self.routing_table.view(torch.int16)
        within = table[domain[:, None], input_ids].reshape(-1, self.k).long() & 0xFFFF
        first = torch.tensor(self.first, device=input_ids.device)[domain]
        return within + first[:, None].expand_as(input_ids).reshape(-1, 1)

    def forward(self, x, choice):
        flat = x.reshape(-1, x.shape[-1])
        order = choice.flatten().argsort(stable=True)
        counts = choice.flatten().bincount(minlength=len(self.experts)).tolist()
        rows = flat[order // self.k].split(counts)
        done = torch.cat([expert(part) for expert, part in zip(self.experts, rows) if len(part)])
        back = torch.empty_like(order)
        back[order] = torch.arange(len(order), device=order.device)
        out = done[back].view(-1, self.k, x.shape[-1])
        return (out[:, 0] if self.k == 1 else out.mean(1)).view_as(x)


class DecoderLayer(nn.Module):
    def __init__(self, config, layer):
        super().__init__()
        self.sparse = layer >= config.num_dense_layers
        self.window = config.window_of(layer)
        self.self_attn = Attention(config, layer)
        self.mlp = RandomRoutedExperts(config) if self.sparse else \
            FeedForward(config, config.intermediate_size)
        self.input_layernorm = norm_of(config)
        self.post_attention_layernorm = norm_of(config)

    def forward(self, x, query, input_ids, domain, rotary, mask, past_key_values):
        normed = self.input_layernorm(x)
        x = x + self.self_attn(normed, normed if query is None else query, rotary, mask,
                               past_key_values)
        normed = self.post_attention_layernorm(x)
        if self.sparse:
            return x + self.mlp(normed, self.mlp.choose(input_ids, domain))
        return x + self.mlp(normed)


def mask_of(attention_mask, length, past, window, device):
    """Bool [batch or 1, 1, length, past + length], or None where plain causal attention is meant. A
    position always sees itself, so that no row of padding is empty."""
    padded = attention_mask is not None and not bool(attention_mask.all())
    if not padded and (window is None or past + length <= window) and (past == 0 or length == 1):
        return None
    row = torch.arange(past, past + length, device=device)[:, None]
    column = torch.arange(past + length, device=device)[None]
    mask = column <= row
    if window is not None:
        mask = mask & (row - column < window)
    mask = mask[None, None]
    if padded:
        mask = mask & (attention_mask[:, None, None, :past + length] != 0) | (row == column)
    return mask


# ---- the model -------------------------------------------------------------------------------------


class PanguSigmaPreTrainedModel(PreTrainedModel):
    config_class = PanguSigmaConfig
    base_model_prefix = "model"
    _no_split_modules = ["DecoderLayer"]
    _supports_sdpa = True
    _supports_flash_attn = False

    def _init_weights(self, module):
        std = self.config.initializer_range
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, mean=0.0, std=std)
        if isinstance(module, (nn.LayerNorm, RMSNorm)):
            nn.init.ones_(module.weight)
        if getattr(module, "bias", None) is not None:
            nn.init.zeros_(module.bias)


class PanguSigmaModel(PanguSigmaPreTrainedModel):
    def __init__(self, config):
        super().__init__(config)
        rows = config.num_embedding_slots * config.vocab_size
        self.embed_tokens = nn.Embedding(rows, config.hidden_size)
        self.embed_positions = self.query_positions = None
        if config.block == "pangu_alpha":
            shape = config.max_position_embeddings, config.hidden_size
            self.embed_positions = nn.Embedding(*shape)
            self.query_positions = nn.Embedding(*shape) if config.query_layer else None
        self.layers = nn.ModuleList(DecoderLayer(config, i) for i in range(config.num_hidden_layers))
        self.norm = norm_of(config)
        self.slots = [domain.get("embedding_slot", 0) for domain in config.domains]
        self.post_init()

    def get_input_embeddings(self):
        return self.embed_tokens

    def set_input_embeddings(self, value):
        self.embed_tokens = value

    def slot_of(self, domain):
        return torch.tensor(self.slots, device=domain.device)[domain]

    def forward(self, input_ids=None, attention_mask=None, position_ids=None, past_key_values=None,
                use_cache=None, domain=None, inputs_embeds=None, cache=None, **kwargs):
        if input_ids is None or inputs_embeds is not None:
            raise ValueError("experts are chosen by token id: give input_ids, not inputs_embeds")
        batch, length = input_ids.shape
        device = input_ids.device
        domain = domain_index(self.config, domain, batch, device)
        past_key_values = cache if past_key_values is None else past_key_values
        if past_key_values is None and (self.config.use_cache if use_cache is None else use_cache):
            past_key_values = DynamicCache()
        past = past_key_values.get_seq_length() if past_key_values is not None else 0
        if position_ids is None:
            position_ids = torch.arange(past, past + length, device=device)[None]

        offset = self.slot_of(domain)[:, None] * self.config.vocab_size
        x = self.embed_tokens(input_ids + offset)
        rotary = None
        if self.embed_positions is not None:
            x = x + self.embed_positions(position_ids)
        else:
            rotary = rotation(self.config, position_ids, x.dtype)
        masks = {}
        last = len(self.layers) - 1
        for i, layer in enumerate(self.layers):
            if layer.window not in masks:
                masks[layer.window] = mask_of(attention_mask, length, past, layer.window, device)
            query = None
            if i == last and self.query_positions is not None:
                x = self.norm(x)
                query = self.query_positions(position_ids).expand_as(x)
            x = layer(x, query, input_ids, domain, rotary, masks[layer.window], past_key_values)
        if self.query_positions is None:
            x = self.norm(x)
        return BaseModelOutputWithPast(x, past_key_values)


class PanguSigmaForCausalLM(PanguSigmaPreTrainedModel, GenerationMixin):
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}

    def __init__(self, config):
        super().__init__(config)
        self.model = PanguSigmaModel(config)
        self.vocab_size = config.vocab_size
        rows = config.num_embedding_slots * config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, rows, bias=False)
        self.post_init()

    def get_input_embeddings(self):
        return self.model.embed_tokens

    def set_input_embeddings(self, value):
        self.model.embed_tokens = value

    def get_output_embeddings(self):
        return self.lm_head

    def set_output_embeddings(self, value):
        self.lm_head = value

    def resize_token_embeddings(self, *args, **kwargs):
        raise ValueError("the routing tables are drawn for this vocabulary: it cannot be resized")

    def head(self, x, domain):
        """Logits [batch, length, vocab] by the rows of each sequence's embedding slot."""
        if self.config.num_embedding_slots == 1:
            return self.lm_head(x)
        weight = self.lm_head.weight.view(-1, self.vocab_size, x.shape[-1])
        slot = self.model.slot_of(domain).tolist()
        return torch.stack([F.linear(row, weight[s]) for row, s in zip(x, slot)])

    def forward(self, input_ids=None, attention_mask=None, position_ids=None, past_key_values=None,
                labels=None, use_cache=None, logits_to_keep=0, domain=None, inputs_embeds=None,
                cache=None, return_dict=None, **kwargs):
        if input_ids is not None:
            domain = domain_index(self.config, domain, len(input_ids), input_ids.device)
        out = self.model(input_ids=input_ids, attention_mask=attention_mask,
                         position_ids=position_ids, past_key_values=past_key_values,
                         use_cache=use_cache, domain=domain, inputs_embeds=inputs_embeds,
                         cache=cache)
        x = out[0]
        keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.head(x[:, keep], domain)
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(),
                                   ignore_index=-100)
        result = CausalLMOutputWithPast(loss, logits, out[1] if len(out) > 1 else None)
        return result if return_dict in (None, True) else result.to_tuple()

    def generate(self, inputs=None, *args, domain=None, **kwargs):
        ids = inputs if inputs is not None else kwargs.get("input_ids")
        batch = len(ids) if ids is not None else 1
        device = ids.device if ids is not None else self.device
        domain = domain_index(self.config, domain, batch, device)
        return super().generate(inputs, *args, domain=domain, **kwargs)
