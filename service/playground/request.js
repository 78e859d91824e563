/** Speaks to the service: one photo in, one answer or one problem out. */

// Too busy, not ready, and past the deadline.
const TEMPORARY = [429, 503, 504];

/** Why there is no answer, in words for a person: `title`, and `message` with what to do. */
export class Problem extends Error {
  constructor(title, detail, temporary) {
    super(detail);
    this.title = title;
    this.temporary = temporary;
  }
}

/** The loaded models, as `GET /models` has them. */
export async function loadedModels() {
  return (await answer("models", {})).json();
}

/** The content of a path of the service, as a Blob. */
export async function fetched(path) {
  return (await answer(path, {})).blob();
}

/**
 * Segments a photo, `{name, blob}`.
 *
 * Resolves to `{result, milliseconds}`: the image's part of the JSON answer, and the time it took
 * as seen from here.
 */
export async function segment(photo, signal) {
  const start = performance.now();
  const headers = { Accept: "application/json", "Content-Type": mediaType(photo) };
  const request = { method: "POST", headers, body: photo.blob, signal };
  const reply = await (await answer("segment?alpha=maps", request)).json();
  return { result: reply.images[0], milliseconds: performance.now() - start };
}

/** The command that sends the same request; a photo that came from here is fetched first. */
export function curlCommand(photo) {
  const fetched = photo.path ? `curl -s ${quoted(absolute(photo.path))} | \\\n` : "";
  const body = photo.path ? "@-" : `@${quoted(photo.name)}`;
  return (
    `${fetched}curl --data-binary ${body} \\\n` +
    `  -H ${quoted(`Content-Type: ${mediaType(photo)}`)} \\\n` +
    `  -H 'Accept: application/json' \\\n` +
    `  ${quoted(absolute("segment?alpha=maps"))}`
  );
}

/** The address of a path of the service, which may itself be served under a prefix. */
export function absolute(path) {
  return new URL(path, document.baseURI).href;
}

async function answer(path, request) {
  let response;
  try {
    response = await fetch(path, request);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("No answer", "The service cannot be reached. Is it still running?", true);
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

async function refusal(response) {
  const temporary = TEMPORARY.includes(response.status);
  if (response.headers.get("Content-Type")?.startsWith("application/problem+json")) {
    const problem = await response.json();
    return new Problem(problem.title, problem.detail, temporary);
  }
  const detail = "Something between this page and the service refused the request.";
  return new Problem(`Error ${response.status}`, detail, temporary);
}

function mediaType(photo) {
  return photo.blob.type || "application/octet-stream";
}

/** Quoted for a POSIX shell. */
function quoted(text) {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}
