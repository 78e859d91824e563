/** Speaks to the service: one photo in, one answer or one problem out. */

// Too busy, not ready, and past the deadline.
const TEMPORARY = [429, 503, 504];

const hasScores = (about) => about.offers_scores && (about.scores?.values ?? "unknown") !== "unknown";

/**
 * What can be saved, by kind: its name for people, the options that ask for it, its media type, how
 * its file's name ends, whether a model can answer with it, if not every one, and whether it is of
 * a class.
 */
export const KINDS = {
  mask: { label: "the mask (PNG)", options: {}, media: "image/png", end: "-mask.png" },
  overlay: {
    label: "the mask over the photo (PNG)",
    options: { overlay: "true" },
    media: "image/png",
    end: "-overlay.png",
  },
  cutout: {
    label: "what is of a class, cut out (PNG)",
    options: {},
    media: "image/png",
    end: "-cutout.png",
    ofClass: true,
  },
  polygons: {
    label: "polygons (GeoJSON)",
    options: { answers: "polygons" },
    media: "application/geo+json",
    end: ".geojson",
  },
  coco: {
    label: "a COCO data set (JSON)",
    options: { answers: "coco" },
    media: "application/json",
    end: "-coco.json",
  },
  components: {
    label: "boxes and areas of regions (JSON)",
    options: { answers: "components" },
    media: "application/json",
    end: "-components.json",
  },
  probability: {
    label: "how sure it is (PNG)",
    options: { probability: "winner" },
    media: "image/png",
    end: "-probability.png",
    needs: hasScores,
  },
  json: {
    label: "classes and mask (JSON)",
    options: { mask: "rle" },
    media: "application/json",
    end: ".json",
  },
  npz: {
    label: "NumPy arrays (NPZ)",
    options: { alpha: "full" },
    media: "application/x-npz",
    end: ".npz",
  },
  planes: {
    label: "a plane for each class (ZIP)",
    options: { planes: "all" },
    media: "application/zip",
    end: "-planes.zip",
    needs: (about) => about.head === "multilabel" && about.offers_scores,
  },
  zip: {
    label: "all of these but cut-outs (ZIP)",
    options: { answers: "mask,overlay,polygons,coco,components", alpha: "full" },
    media: "application/zip",
    end: ".zip",
  },
};

/** The API key, which this tab remembers; empty where none was given. */
export const key = {
  get: () => sessionStorage.getItem("key") ?? "",
  set: (value) => sessionStorage.setItem("key", value),
};

/** Why there is no answer, in words for a person: `title`, and `message` with what to do. */
export class Problem extends Error {
  constructor(title, detail, status) {
    super(detail);
    this.title = title;
    this.locked = status === 401;
    this.temporary = status === undefined || TEMPORARY.includes(status);
  }
}

/** The loaded models, as `GET /models` has them. */
export async function loadedModels() {
  return (await answer("models", {})).json();
}

/** The content of a path of the service, as a Blob. */
export async function fetched(path, signal) {
  return (await answer(path, { signal })).blob();
}

/**
 * Segments a photo, `{name, blob, asked}`, where `asked` is `{model, tile, page, runs}`.
 *
 * Resolves to `{result, milliseconds}`: the image's part of the JSON answer, and the time it took
 * as seen from here.
 */
export async function segment(photo, signal) {
  const start = performance.now();
  const reply = await (await post(photo, shown(photo), "application/json", signal)).json();
  return { result: reply.images[0], milliseconds: performance.now() - start };
}

/** A file to save, `{name, blob}`: an answer for the photo of a kind of `KINDS`, of a class's id. */
export async function savedAs(photo, kind, id) {
  const { options, media, end, ofClass } = KINDS[kind];
  const blob = await (await post(photo, ofClass ? { [kind]: id } : options, media)).blob();
  const page = photo.asked.page > 1 ? `-page-${photo.asked.page}` : "";
  return { name: photo.name.replace(/\.\w+$/, "") + page + end, blob };
}

/** The command that sends the same request; a photo that came from here is fetched first. */
export function curlCommand(photo) {
  const fetched = photo.path ? `curl -s ${quoted(absolute(photo.path))} | \\\n` : "";
  const body = photo.path ? "@-" : `@${quoted(photo.name)}`;
  return (
    `${fetched}curl --data-binary ${body} \\\n` +
    `  -H ${quoted(`Content-Type: ${mediaType(photo)}`)} \\\n` +
    `  -H 'Accept: application/json' \\\n` +
    (key.get() ? `  -H "Authorization: Bearer $PPOOL_API_KEY" \\\n` : "") +
    `  ${quoted(absolute(address(photo, shown(photo))))}`
  );
}

/** The address of a path of the service, which may itself be served under a prefix. */
export function absolute(path) {
  return new URL(path, document.baseURI).href;
}

/** The options that ask for what the page shows. */
function shown(photo) {
  return photo.asked.runs ? { alpha: "maps", mask: "rle" } : { alpha: "maps" };
}

function post(photo, options, media, signal) {
  const headers = { Accept: media, "Content-Type": mediaType(photo) };
  return answer(address(photo, options), { method: "POST", headers, body: photo.blob, signal });
}

function address({ asked }, options) {
  const query = new URLSearchParams(options);
  // At full resolution there are no exponents.
  if (asked.tile) query.delete("alpha");
  if (asked.tile) query.set("mode", "tile");
  if (asked.page > 1) query.set("page", asked.page);
  if (asked.model) query.set("model", asked.model);
  return query.size ? `segment?${query}` : "segment";
}

async function answer(path, { headers, ...request }) {
  let response;
  const known = key.get() ? { Authorization: `Bearer ${key.get()}` } : {};
  try {
    response = await fetch(path, { ...request, headers: { ...headers, ...known } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("No answer", "The service cannot be reached. Is it still running?");
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

async function refusal(response) {
  if (response.headers.get("Content-Type")?.startsWith("application/problem+json")) {
    const problem = await response.json();
    return new Problem(problem.title, problem.detail, response.status);
  }
  const detail = "Something between this page and the service refused the request.";
  return new Problem(`Error ${response.status}`, detail, response.status);
}

function mediaType(photo) {
  return photo.blob.type || "application/octet-stream";
}

/** Quoted for a POSIX shell. */
function quoted(text) {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}
