"""The configuration of a PanGu-Sigma checkpoint for Hugging Face transformers: config.json as
docs/PANGU_SIGMA.md of sigmoe describes it. Lies beside the checkpoint; needs transformers >= 4.57."""
from transformers import PretrainedConfig

BLOCKS = ("llama", "qwen2", "qwen3", "pangu_alpha")


class PanguSigmaConfig(PretrainedConfig):
    model_type = "pangu_sigma"
    keys_to_ignore_at_inference = ["past_key_values"]
    # Newer transformers turn rope_scaling into another key; the file keeps the one it has.
    rope_scaling = None

    def __init__(self, block="llama", vocab_size=32000, hidden_size=512, intermediate_size=1376,
                 expert_intermediate_size=None, num_hidden_layers=6, num_dense_layers=4,
                 num_attention_heads=8, num_key_value_heads=None, head_dim=None, hidden_act=None,
                 max_position_embeddings=2048, initializer_range=0.02, rms_norm_eps=1e-6,
                 layer_norm_eps=1e-5, rope_theta=10000.0, rope_scaling=None, attention_bias=False,
                 mlp_bias=False, use_sliding_window=False, sliding_window=None,
                 max_window_layers=28, query_layer=True, domains=None, default_domain=None,
                 num_experts_per_tok=1, num_embedding_slots=1, routing_seed="", use_cache=True,
                 tie_word_embeddings=None, **kwargs):
        if block not in BLOCKS:
            raise ValueError(f'"block" is "{block}"; known are {", ".join(BLOCKS)}')
        pangu = block == "pangu_alpha"
        self.block = block
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.intermediate_size = intermediate_size
        self.expert_intermediate_size = expert_intermediate_size or intermediate_size
        self.num_hidden_layers = num_hidden_layers
        self.num_dense_layers = num_dense_layers
        self.num_attention_heads = num_attention_heads
        self.num_key_value_heads = num_key_value_heads or num_attention_heads
        self.head_dim = head_dim or (128 if block == "qwen3" else hidden_size // num_attention_heads)
        self.hidden_act = hidden_act or ("gelu_pytorch_tanh" if pangu else "silu")
        self.max_position_embeddings = max_position_embeddings
        self.initializer_range = initializer_range
        if pangu:
            self.layer_norm_eps = layer_norm_eps
            self.query_layer = query_layer
        else:
            self.rms_norm_eps = rms_norm_eps
            self.rope_theta = rope_theta
            self.rope_scaling = rope_scaling
        if block == "llama":
            self.mlp_bias = mlp_bias
        if block in ("llama", "qwen3"):
            self.attention_bias = attention_bias
        if block in ("qwen2", "qwen3"):
            self.use_sliding_window = use_sliding_window
            self.sliding_window = sliding_window
            self.max_window_layers = max_window_layers
        self.domains = domains or [{"name": "default", "num_experts": num_experts_per_tok}]
        self.default_domain = default_domain or self.domains[0]["name"]
        self.num_experts_per_tok = num_experts_per_tok
        self.num_embedding_slots = num_embedding_slots
        self.routing_seed = routing_seed
        self.use_cache = use_cache
        kwargs.pop("rope_parameters", None)
        super().__init__(tie_word_embeddings=pangu if tie_word_embeddings is None
                         else tie_word_embeddings, **kwargs)

    @property
    def domain_names(self):
        return [domain["name"] for domain in self.domains]

    def window_of(self, layer):
        """The sliding window of a layer, or None."""
        used = getattr(self, "use_sliding_window", False) and layer >= self.max_window_layers
        return self.sliding_window if used else None
