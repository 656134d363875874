// status: the one place that knows the field names of /sigmoe/status.

function groupsOf(s) {
  const groups = (s.domains ?? []).map((d) => ({ name: d.name, first: d.first, count: d.experts }));
  return groups.length ? groups : [{ name: "", first: 0, count: s.experts }];
}

// A worker that was given no name has its endpoint for one.
function workerOf(w, i, pairs) {
  return {
    id: w.name, name: w.name === w.endpoint ? `worker ${i + 1}` : w.name, where: w.endpoint,
    alive: w.state === "up", state: w.state, share: w.share, held: pairs ? w.experts / pairs : 0, rttMs: w.rtt_ms, calls: w.calls, failures: w.failures,
    bytes: w.bytes_sent + w.bytes_received,
  };
}

export function readStatus(s) {
  const used = s.kv.pages - s.kv.free;
  return {
    model: {
      name: s.model, family: s.family, nLayer: s.layers, nExpert: s.experts, topK: s.top_k,
      chat: s.chat, groups: groupsOf(s),
    },
    at: s.uptime_s, tokens: s.tokens, windowS: s.window_s,
    rate: s.tokens_per_s.generated, ratePrompt: s.tokens_per_s.prompt,
    running: s.requests.running, waiting: s.requests.waiting, uncovered: s.uncovered,
    kv: { pages: s.kv.pages, pagesUsed: used, used: s.kv.pages ? used / s.kv.pages : 0,
          found: s.kv.lookup_tokens ? s.kv.hit_tokens / s.kv.lookup_tokens : null },
    workers: s.workers.map((w, i) => workerOf(w, i, s.sparse_layers.length * s.experts)), localShare: s.coordinator.share,
    load: { layers: s.sparse_layers, recent: s.load, all: s.load_total },
  };
}
