// talk: the conversation on the left: questions, answers that stream, the domain, the settings.

import { $, copy, make, rendered, setText } from "./text.js";
import { chunks, Refused, setKey } from "./stream.js";

const NUMBERS = ["temperature", "top_p", "top_k", "max_tokens", "seed"];
const EXAMPLES = {
  zh: "高血压患者应该注意什么？",
  en: "Tom has 5 apples and buys 7 more. How many apples does he have?",
  code: "Write a Python function is_empty: Return True if the queue is empty.",
  bilingual: "Translate into Chinese: I am very happy today.",
  poetry: "以「春望」為題寫一首詩。", "": "Once upon a time",
};

const state = { messages: [], model: "", domains: [], running: null };
let workerName = (name) => name;

function request() {
  const plain = $("set-plain").checked, system = $("set-system").value.trim();
  const out = { model: state.model };
  for (const name of NUMBERS) {
    const value = $(`set-${name}`).valueAsNumber;
    if (Number.isFinite(value)) out[name] = value;
  }
  const domain = chosenDomain();
  if (domain) out.domain = domain;
  if (plain) {
    out.prompt = system + state.messages.map((m) => m.content).join("");
  } else {
    out.messages = state.messages.map(({ role, content }) => ({ role, content }));
    if (system) out.messages.unshift({ role: "system", content: system });
  }
  return [plain ? "v1/completions" : "v1/chat/completions", out];
}

function chosenDomain() {
  return document.querySelector("input[name=domain]:checked")?.value ?? "";
}

function domainClass(domain) {
  const at = state.domains.indexOf(domain);
  return at < 0 ? "" : ` d${at % 8}`;
}

// ---- what is shown ------------------------------------------------------------------------------

function nearEnd() {
  const box = $("messages");
  return box.scrollHeight - box.scrollTop - box.clientHeight < 80;
}

function toEnd() {
  $("messages").scrollTop = $("messages").scrollHeight;
}

function showQuestion(message) {
  const node = make("article", { class: "message user", "aria-label": "You" },
    make("div", { class: "prose", dir: "auto" }, message.content));
  $("messages").append(node);
  return node;
}

// An answer's node with the functions that fill it.
function showAnswer() {
  const who = make("span", { class: "who" }, state.model || "model");
  const domain = make("span", { class: "chip", hidden: true });
  const figures = make("span", { class: "figures quiet" }, "waiting");
  const body = make("div", { class: "body" });
  const by = make("span", { class: "quiet" });
  const actions = make("div", { class: "actions" });
  const node = make("article", { class: "message answer streaming", "aria-label": "Answer" },
    make("header", {}, who, domain, figures), body, actions);
  $("messages").append(node);
  let asked = 0;
  return {
    node,
    text(text) {
      if (asked) return;
      asked = requestAnimationFrame(() => {
        asked = 0;
        const follow = nearEnd();
        body.replaceChildren(...rendered(text()));
        if (follow) toEnd();
      });
    },
    domain(name) {
      domain.hidden = !name;
      setText(domain, name);
      domain.className = `chip${domainClass(name)}`;
    },
    found(scores) {
      const told = Object.entries(scores).sort((a, b) => b[1] - a[1]).map(([name, s]) => `${name} ${s.toFixed(2)}`);
      setText(domain, `${domain.textContent}, found`);
      domain.title = `Found from your words; log-likelihood a token: ${told.join(", ")}`;
    },
    by(workers) {
      by.textContent = workers.map((w) => `${workerName(w.worker)} ${(100 * w.share).toFixed(0)} %`).join(", ");
      if (workers.length) by.prepend("computed by ");
    },
    figures(text) { setText(figures, text); },
    fail(words) { body.append(make("p", { class: "wrong", role: "alert" }, words)); },
    end(text, retry) {
      cancelAnimationFrame(asked);
      body.querySelectorAll(".prose, .code").forEach((old) => old.remove());
      body.prepend(...rendered(text));
      node.classList.remove("streaming");
      const button = make("button", { type: "button", class: "ghost small" }, "Copy");
      button.addEventListener("click", () => copy(text, button));
      const again = make("button", { type: "button", class: "ghost small" }, "Again");
      again.addEventListener("click", retry);
      actions.replaceChildren(...(text ? [button] : []), again, by);
    },
  };
}

function showBusy(busy) {
  $("send").hidden = busy;
  $("stop").hidden = !busy;
  $("composer").classList.toggle("busy", busy);
}

function figuresOf(answer, end) {
  const parts = [];
  if (answer.n) {
    parts.push(`${answer.n} tokens`);
    const seconds = (answer.last - answer.first) / 1000;
    if (answer.n > 1 && seconds > 0) parts.push(`${((answer.n - 1) / seconds).toFixed(1)} a second`);
    parts.push(`first after ${Math.round(answer.first - answer.start)} ms`);
  }
  if (end) parts.push(end);
  return parts.join(" · ");
}

// ---- asking -------------------------------------------------------------------------------------

function domainOf(chunk, known) {
  if (typeof chunk.domain === "string" && chunk.domain) return chunk.domain;
  const end = /:([a-z0-9_-]+)$/.exec(chunk.model ?? "")?.[1];
  return end && state.domains.includes(end) ? end : known;
}

async function receive(answer, shown, signal) {
  const [path, body] = request();
  for await (const chunk of chunks(path, body, signal)) {
    const choice = chunk.choices?.[0];
    const piece = choice?.delta?.content ?? choice?.text ?? "";
    answer.domain = domainOf(chunk, answer.domain);
    answer.finish = choice?.finish_reason ?? answer.finish;
    if (piece) {
      answer.last = performance.now();
      answer.first ||= answer.last;
      answer.n++;
      answer.text += piece;
      shown.text(() => answer.text);
    }
    if (chunk.sigmoe) {
      answer.by = chunk.sigmoe.computed_by ?? [];
      answer.scores = chunk.sigmoe.domains?.[0]?.scores;
    }
    if (chunk.usage) answer.n = chunk.usage.completion_tokens ?? answer.n;
    shown.domain(answer.domain);
    shown.figures(figuresOf(answer, piece ? "" : answer.finish === "length" ? "cut at the limit" : ""));
  }
}

// A model without a template for conversations can still go on with a text.
function wantsPlain(error) {
  return error instanceof Refused && error.status === 400 && /chat template/.test(error.message) &&
    !$("set-plain").checked;
}

function explain(error) {
  if (!(error instanceof Refused)) return "The server does not answer; is it still running?";
  if (error.status === 401) {
    $("key-field").hidden = false;
    $("settings").open = true;
    return "The server asks for a key: put it into the settings.";
  }
  return error.message;
}

async function answerLast() {
  const answer = { text: "", domain: chosenDomain(), n: 0, start: performance.now(), finish: "" };
  const shown = showAnswer();
  state.running = new AbortController();
  showBusy(true);
  toEnd();
  let end = "";
  try {
    await receive(answer, shown, state.running.signal).catch((error) => {
      if (!wantsPlain(error)) throw error;
      $("set-plain").checked = true;
      answer.start = performance.now();
      return receive(answer, shown, state.running.signal);
    });
    if (answer.finish === "length") end = "cut at the limit";
  } catch (error) {
    end = state.running.signal.aborted ? "stopped" : "failed";
    if (end === "failed") shown.fail(explain(error));
  }
  state.running = null;
  showBusy(false);
  shown.figures(figuresOf(answer, end));
  if (answer.scores) shown.found(answer.scores);
  shown.by(answer.by ?? []);
  const message = answer.text ? { role: "assistant", content: answer.text } : null;
  if (message) state.messages.push(message);
  shown.end(answer.text, () => again(shown.node, message));
  setText($("said"), answer.text);
  toEnd();
}

// Forgets the answer and all that follows it, and asks its question again.
function again(node, message) {
  if (state.running) return;
  if (message) state.messages.length = Math.max(0, state.messages.indexOf(message));
  while (node.nextSibling) node.nextSibling.remove();
  node.remove();
  while (state.messages.length && state.messages.at(-1).role !== "user") state.messages.pop();
  if (state.messages.length) answerLast();
}

function ask(text) {
  if (state.running || !text.trim()) return;
  $("welcome").hidden = true;
  // A question that got no answer is asked no longer.
  if (state.messages.at(-1)?.role === "user" && !$("set-plain").checked) state.messages.pop();
  const message = { role: "user", content: $("set-plain").checked ? text : text.trim() };
  state.messages.push(message);
  showQuestion(message);
  $("question").value = "";
  fit();
  answerLast();
}

function fit() {
  const field = $("question");
  field.style.height = "auto";
  field.style.height = `${Math.min(field.scrollHeight + 2, 220)}px`;
}

function fresh() {
  state.running?.abort();
  state.messages = [];
  $("messages").querySelectorAll(".message").forEach((node) => node.remove());
  $("welcome").hidden = false;
  $("question").focus();
}

// ---- domains and examples -----------------------------------------------------------------------

function example(domain) {
  const text = EXAMPLES[domain] ?? EXAMPLES[""];
  const button = make("button", { type: "button", class: "example" },
    domain ? make("span", { class: `chip${domainClass(domain)}` }, domain) : null, text);
  button.addEventListener("click", () => {
    const radio = document.querySelector(`input[name=domain][value="${CSS.escape(domain)}"]`);
    if (radio) radio.checked = true;
    ask(text);
  });
  return make("li", {}, button);
}

// The cluster's side tells the model's name and domains as it learns them.
export function talkModel({ name, domains, chat, nameOf }) {
  workerName = nameOf;
  if (name === state.model && domains.join() === state.domains.join()) return;
  state.model = name;
  state.domains = domains;
  if (chat === false) $("set-plain").checked = true;
  $("domains").hidden = domains.length === 0;
  $("domains").querySelectorAll("label").forEach((old) => old.remove());
  for (const domain of domains.length ? ["", ...domains] : []) {
    $("domains").append(make("label", { class: `choice${domainClass(domain)}` },
      make("input", { type: "radio", name: "domain", value: domain, checked: domain === "" }),
      make("span", {}, domain || "auto")));
  }
  const shown = domains.length ? domains.slice(0, 6) : [""];
  $("examples").replaceChildren(...shown.map(example));
}

export function talkStart() {
  $("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    ask($("question").value);
  });
  $("question").addEventListener("input", fit);
  $("question").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      $("composer").requestSubmit();
    }
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") state.running?.abort();
  });
  $("stop").addEventListener("click", () => state.running?.abort());
  $("fresh").addEventListener("click", fresh);
  $("set-key").addEventListener("change", () => {
    sessionStorage.setItem("key", $("set-key").value);
    setKey($("set-key").value);
  });
  const kept = sessionStorage.getItem("key");
  if (kept) {
    $("set-key").value = kept;
    $("key-field").hidden = false;
    setKey(kept);
  }
  $("question").focus();
}
