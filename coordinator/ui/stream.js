// stream: requests to the server that served this page, and answers that come as Server-Sent Events.

let key = "";

export function setKey(value) {
  key = value;
}

export class Refused extends Error {
  constructor(status, words) {
    super(words);
    this.status = status;
  }
}

function headers() {
  const out = { "Content-Type": "application/json" };
  if (key) out.Authorization = `Bearer ${key}`;
  return out;
}

async function words(response) {
  const text = await response.text();
  try {
    return JSON.parse(text).error.message;
  } catch {
    return text.slice(0, 300) || response.statusText;
  }
}

export async function getJson(path, signal) {
  const response = await fetch(path, { headers: headers(), signal, cache: "no-store" });
  if (!response.ok) throw new Refused(response.status, await words(response));
  return response.json();
}

// The data of each event, as it comes.
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "", data = [];
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split(/\r\n|\n/);
    rest = lines.pop();
    for (const line of lines) {
      if (line.startsWith("data:")) data.push(line.slice(line[5] === " " ? 6 : 5));
      else if (line === "" && data.length) {
        yield data.join("\n");
        data = [];
      }
    }
  }
}

// Posts a request and yields each chunk as an object, until [DONE] or the end.
export async function* chunks(path, request, signal) {
  const response = await fetch(path, {
    method: "POST", headers: headers(), signal,
    body: JSON.stringify({ ...request, stream: true, stream_options: { include_usage: true } }),
  });
  if (!response.ok) throw new Refused(response.status, await words(response));
  for await (const data of events(response.body)) {
    if (data.startsWith("[DONE]")) return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new Refused(200, chunk.error.message ?? "the server gave up");
    yield chunk;
  }
}
