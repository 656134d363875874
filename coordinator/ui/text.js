// text: making elements, and showing what a model wrote. Everything that comes from a server becomes
// text nodes; nothing is ever parsed as HTML.

export const $ = (id) => document.getElementById(id);

// make("p", {class: "quiet"}, "text", node, ...)
export function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child != null));
  return node;
}

export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export async function copy(text, button) {
  const before = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "The browser forbids it";
  }
  setTimeout(() => { button.textContent = before; }, 1500);
}

// Inline code and bold: the two marks that models write most. Anything else stays as it is.
function inline(text) {
  const out = [];
  for (const part of text.split(/(`[^`\n]+`|\*\*[^*\n]+\*\*)/)) {
    if (part.length > 2 && part.startsWith("`") && part.endsWith("`")) {
      out.push(make("code", {}, part.slice(1, -1)));
    } else if (part.length > 4 && part.startsWith("**") && part.endsWith("**")) {
      out.push(make("strong", {}, part.slice(2, -2)));
    } else if (part) {
      out.push(document.createTextNode(part));
    }
  }
  return out;
}

function codeBlock(language, lines) {
  const text = lines.join("\n");
  const button = make("button", { type: "button", class: "ghost small" }, "Copy");
  button.addEventListener("click", () => copy(text, button));
  return make("figure", { class: "code" },
    make("figcaption", {}, language || "code", button),
    make("pre", { tabindex: "0" }, make("code", {}, text)));
}

// Text with ``` fences, as nodes. A fence that is still open (the answer streams) is a block already.
export function rendered(text) {
  const out = [];
  let prose = [], code = null, language = "";
  const endProse = () => {
    const joined = prose.join("\n").replace(/^\n+|\s+$/g, "");
    if (joined) out.push(make("div", { class: "prose", dir: "auto" }, ...inline(joined)));
    prose = [];
  };
  for (const line of text.split("\n")) {
    const fence = /^\s*```(.*)$/.exec(line);
    if (fence && code === null) {
      endProse();
      code = [];
      language = fence[1].trim().slice(0, 24);
    } else if (fence) {
      out.push(codeBlock(language, code));
      code = null;
    } else {
      (code ?? prose).push(line);
    }
  }
  if (code !== null) out.push(codeBlock(language, code));
  endProse();
  return out;
}
