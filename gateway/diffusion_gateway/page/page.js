// The page of the gateway: a request form, the images as they come, a history. It talks to the API of its own server only.

const MOST_IN_HISTORY = 50;
const NUMBERS = ["num_inference_steps", "guidance_scale", "seed", "n"];
const TEXTS = ["prompt", "negative_prompt", "model", "size", "output_format"];
const FIELDS = [...TEXTS, ...NUMBERS, "strength", "partial_images"];

const element = (id) => document.getElementById(id);
const state = { models: [], file: null, isPainted: false, abort: null };

// Models and what they serve

async function loadModels() {
  const response = await fetch("v1/models", { headers: authorization() });
  if (response.status === 401) {
    say("Enter a key to begin.");
    return;
  }
  if (!response.ok) throw await apiError(response);
  state.models = (await response.json()).data;
  const select = element("model");
  const before = select.value;
  select.replaceChildren(...state.models.map((model) => new Option(model.id)));
  if (state.models.some((model) => model.id === before)) select.value = before;
  offerSteps();
  say(state.models.some((model) => model.ensembles.length) ? "Ready." : "The models have not started yet: reload the page later.");
}

function task() {
  if (state.file === null) return "generate";
  return state.isPainted ? "inpaint" : "img2img";
}

function ensembles() {
  const model = state.models.find((one) => one.id === element("model").value);
  return (model?.ensembles ?? []).filter((one) => one.task === task() && one.features.length === 0);
}

function offerSteps() {
  const select = element("num_inference_steps");
  const before = select.value;
  const steps = [...new Set(ensembles().map((one) => one.steps))].sort((a, b) => a - b);
  select.replaceChildren(new Option("default", ""), ...steps.map((count) => new Option(count)));
  if (steps.includes(Number(before))) select.value = before;
  element("partial_images").disabled = !ensembles().some((one) => one.previews.length);
}

// The request

function fieldsOfForm() {
  const fields = {};
  for (const name of TEXTS) {
    const value = element(name).value.trim();
    if (value !== "" && !(name === "size" && value === "auto")) fields[name] = value;
  }
  for (const name of [...NUMBERS, ...(state.file ? ["strength"] : [])]) {
    if (element(name).value !== "") fields[name] = Number(element(name).value);
  }
  const previews = element("partial_images").disabled ? 0 : Number(element("partial_images").value);
  return previews ? { ...fields, stream: true, partial_images: previews } : fields;
}

async function send(fields, signal) {
  if (state.file === null) {
    const headers = { "Content-Type": "application/json", ...authorization() };
    return fetch("v1/images/generations", { method: "POST", headers, body: JSON.stringify(fields), signal });
  }
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) form.append(name, String(value));
  form.append("image", state.file, "image");
  if (state.isPainted) form.append("mask", await maskFile(), "mask.png");
  return fetch("v1/images/edits", { method: "POST", headers: authorization(), body: form, signal });
}

function authorization() {
  const key = element("key").value.trim();
  return key ? { Authorization: `Bearer ${key}` } : {};
}

async function apiError(response) {
  try {
    return (await response.json()).error;
  } catch {
    return { message: `The server answered ${response.status}.`, param: null };
  }
}

async function generate() {
  clearError();
  const fields = fieldsOfForm();
  state.abort = new AbortController();
  setBusy(true);
  const started = performance.now();
  try {
    const response = await send(fields, state.abort.signal);
    if (!response.ok) throw await apiError(response);
    const images = fields.stream ? await readEvents(response, fields) : await readJson(response);
    show(images, fields, false);
    remember(images, fields);
    say(`${images.length === 1 ? "1 image" : `${images.length} images`} in ${((performance.now() - started) / 1000).toFixed(1)} s.`);
  } catch (error) {
    if (error.name === "AbortError") say("Cancelled.");
    else showError(error);
  } finally {
    setBusy(false);
  }
}

async function readJson(response) {
  const answer = await response.json();
  return answer.data.map((entry) => ({
    url: imageUrl(entry.b64_json, answer.output_format),
    seed: entry.seed,
    flagged: entry.flagged,
  }));
}

async function readEvents(response, fields) {
  const images = [];
  let previews = [];
  let index = -1;
  for await (const event of eventsOf(response.body)) {
    if (event.error) throw event.error;
    const image = { url: imageUrl(event.b64_json, event.output_format), seed: event.seed, flagged: event.flagged };
    if (event.type.endsWith(".completed")) {
      images.push(image);
    } else {
      previews = event.partial_image_index === index ? [...previews, image] : [image];
      index = event.partial_image_index;
      show(previews, fields, true);
      say(`Preview ${index + 1} …`);
    }
  }
  return images;
}

async function* eventsOf(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    for (let end = text.indexOf("\n\n"); end >= 0; end = text.indexOf("\n\n")) {
      const data = text.slice(0, end).split("\n").find((line) => line.startsWith("data: "));
      text = text.slice(end + 2);
      if (data) yield JSON.parse(data.slice(6));
    }
  }
}

function imageUrl(base64, format) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  return URL.createObjectURL(new Blob([bytes], { type: `image/${format}` }));
}

// What is shown

function show(images, fields, isPreview) {
  const figures = images.map((image) => {
    const figure = document.createElement("figure");
    figure.className = isPreview ? "preview" : "";
    const picture = document.createElement("img");
    picture.src = image.url;
    picture.alt = isPreview ? `Preview of: ${fields.prompt}` : fields.prompt;
    const caption = document.createElement("figcaption");
    if (isPreview) {
      caption.textContent = "Preview";
    } else if (image.flagged) {
      caption.textContent = `Seed ${image.seed} · withheld by the safety checker`;
    } else {
      const link = document.createElement("a");
      link.href = image.url;
      link.download = `image-${image.seed}.${fields.output_format}`;
      link.textContent = "Save";
      caption.append(`Seed ${image.seed} · `, link);
    }
    figure.append(picture, caption);
    return figure;
  });
  element("images").replaceChildren(...figures);
}

function remember(images, fields) {
  const list = element("history");
  const entry = { fields: { ...fields, seed: images[0].seed }, images, file: state.file };
  const item = document.createElement("li");
  const button = document.createElement("button");
  button.type = "button";
  button.title = Object.entries(entry.fields).map(([name, value]) => `${name}: ${value}`).join("\n");
  const picture = document.createElement("img");
  picture.src = images[0].url;
  picture.alt = `Show again: ${fields.prompt}, seed ${images[0].seed}`;
  button.append(picture);
  button.addEventListener("click", () => restore(entry));
  item.append(button);
  item.entry = entry;
  list.prepend(item);
  while (list.children.length > MOST_IN_HISTORY) {
    for (const image of list.lastChild.entry.images) URL.revokeObjectURL(image.url);
    list.lastChild.remove();
  }
}

async function restore(entry) {
  if (entry.file !== state.file) await setImage(entry.file);
  for (const name of FIELDS) element(name).value = entry.fields[name] ?? { size: "auto", partial_images: "0" }[name] ?? "";
  show(entry.images, entry.fields, false);
  say(`Shows the image with seed ${entry.fields.seed} and its request.`);
  element("result").focus();
}

function say(text) {
  element("status").textContent = text;
}

function setBusy(isBusy) {
  element("generate").disabled = isBusy;
  element("cancel").disabled = !isBusy;
  element("result").setAttribute("aria-busy", String(isBusy));
  if (isBusy) say("Generating …");
}

function clearError() {
  element("error").hidden = true;
  for (const field of document.querySelectorAll("[aria-invalid]")) field.removeAttribute("aria-invalid");
}

function showError(error) {
  element("error").textContent = error.message;
  element("error").hidden = false;
  say("No image.");
  const field = error.param ? document.getElementById(error.param) : null;
  if (field) {
    field.setAttribute("aria-invalid", "true");
    field.focus();
  }
}

// The image that is edited, and its mask

async function setImage(file) {
  state.file = file;
  element("edit").hidden = file === null;
  if (file === null) element("image").value = "";
  else await drawImage(file);
  clearMask();
}

async function drawImage(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    state.file = null;
    element("edit").hidden = true;
    showError({ message: "The file is not an image: choose a PNG, JPEG or WebP file.", param: "image" });
    return;
  }
  for (const id of ["picture", "mask"]) {
    element(id).width = bitmap.width;
    element(id).height = bitmap.height;
  }
  element("picture").getContext("2d").drawImage(bitmap, 0, 0);
  bitmap.close();
  brush.x = element("mask").width / 2;
  brush.y = element("mask").height / 2;
}

const brush = { x: 0, y: 0, isDown: false };

function brushWidth() {
  return (Number(element("brush").value) / 100) * Math.max(element("mask").width, element("mask").height);
}

function paintTo(x, y) {
  const context = element("mask").getContext("2d");
  context.strokeStyle = "#e5484d";
  context.lineCap = "round";
  context.lineWidth = brushWidth();
  context.beginPath();
  context.moveTo(brush.x, brush.y);
  context.lineTo(x, y);
  context.stroke();
  moveBrush(x, y);
  if (!state.isPainted) {
    state.isPainted = true;
    offerSteps();
  }
}

function moveBrush(x, y) {
  brush.x = Math.min(Math.max(x, 0), element("mask").width);
  brush.y = Math.min(Math.max(y, 0), element("mask").height);
}

function pointOf(event) {
  const canvas = element("mask");
  const box = canvas.getBoundingClientRect();
  return [((event.clientX - box.left) * canvas.width) / box.width, ((event.clientY - box.top) * canvas.height) / box.height];
}

function paintWithKeys(event) {
  const step = brushWidth() / 2;
  const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step], " ": [0, 0] };
  const move = moves[event.key];
  if (!move) return;
  event.preventDefault();
  const [x, y] = [brush.x + move[0], brush.y + move[1]];
  if (event.key === " " || event.shiftKey) paintTo(x, y);
  else moveBrush(x, y);
  say(`Brush at ${Math.round((100 * brush.x) / element("mask").width)} % from the left, ${Math.round((100 * brush.y) / element("mask").height)} % from the top${event.key === " " ? ", painted" : ""}.`);
}

function clearMask() {
  const canvas = element("mask");
  canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
  state.isPainted = false;
  offerSteps();
}

// White where the canvas is painted, black elsewhere: a mask without transparency.
function maskFile() {
  const painted = element("mask");
  const canvas = new OffscreenCanvas(painted.width, painted.height);
  const context = canvas.getContext("2d");
  context.drawImage(painted, 0, 0);
  context.globalCompositeOperation = "source-in";
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.globalCompositeOperation = "destination-over";
  context.fillStyle = "#000";
  context.fillRect(0, 0, canvas.width, canvas.height);
  return canvas.convertToBlob({ type: "image/png" });
}

// The request as code

const shellQuoted = (text) => `'${String(text).replaceAll("'", "'\\''")}'`;

function curl(fields) {
  const key = element("key").value ? ' \\\n  -H "Authorization: Bearer $KEY"' : "";
  const url = new URL(`v1/images/${state.file ? "edits" : "generations"}`, location.href);
  const unpack = " \\\n  | jq -r '.data[0].b64_json' | base64 -d > image." + fields.output_format;
  if (state.file === null) {
    return `curl -s ${url}${key} \\\n  -H 'Content-Type: application/json' \\\n  -d ${shellQuoted(JSON.stringify(fields))}${unpack}`;
  }
  const files = ["image", ...(state.isPainted ? ["mask"] : [])].map((name) => ` \\\n  -F ${name}=@${name}.png`);
  const texts = Object.entries(fields).map(([name, value]) => ` \\\n  --form-string ${shellQuoted(`${name}=${value}`)}`);
  return `curl -s ${url}${key}${texts.join("")}${files.join("")}${unpack}`;
}

function python(fields) {
  const known = ["prompt", "model", "size", "n", "output_format"];
  const literal = (value) => (typeof value === "string" ? JSON.stringify(value) : String(value));
  const own = Object.entries(fields).filter(([name]) => known.includes(name)).map(([name, value]) => `    ${name}=${literal(value)},`);
  const extra = Object.entries(fields).filter(([name]) => !known.includes(name)).map(([name, value]) => `${literal(name)}: ${literal(value)}`);
  const files = state.file ? ['    image=open("image.png", "rb"),', ...(state.isPainted ? ['    mask=open("mask.png", "rb"),'] : [])] : [];
  return [
    "import base64",
    "",
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url=${literal(String(new URL("v1", location.href)))}, api_key="${element("key").value ? "KEY" : "none"}")`,
    `answer = client.images.${state.file ? "edit" : "generate"}(`,
    ...files,
    ...own,
    ...(extra.length ? [`    extra_body={${extra.join(", ")}},`] : []),
    ")",
    `with open("image.${fields.output_format}", "wb") as file:`,
    "    file.write(base64.b64decode(answer.data[0].b64_json))",
  ].join("\n");
}

async function copy(write) {
  const { stream, partial_images, ...fields } = fieldsOfForm();
  const text = write(fields);
  element("code").textContent = text;
  element("code").hidden = false;
  try {
    await navigator.clipboard.writeText(text);
    say("Copied.");
  } catch {
    say("The code is below the buttons.");
  }
}

// What happens when

element("form").addEventListener("submit", (event) => {
  event.preventDefault();
  generate();
});
element("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !element("generate").disabled) element("form").requestSubmit();
});
element("cancel").addEventListener("click", () => state.abort?.abort());
element("copy-curl").addEventListener("click", () => copy(curl));
element("copy-python").addEventListener("click", () => copy(python));
element("model").addEventListener("change", offerSteps);
element("key").addEventListener("change", () => loadModels().catch(showError));
element("image").addEventListener("change", () => setImage(element("image").files[0] ?? null));
element("remove-image").addEventListener("click", () => setImage(null));
element("clear-mask").addEventListener("click", clearMask);
element("mask").addEventListener("keydown", paintWithKeys);
element("mask").addEventListener("pointerdown", (event) => {
  element("mask").setPointerCapture(event.pointerId);
  brush.isDown = true;
  moveBrush(...pointOf(event));
  paintTo(...pointOf(event));
});
element("mask").addEventListener("pointermove", (event) => brush.isDown && paintTo(...pointOf(event)));
for (const end of ["pointerup", "pointercancel"]) element("mask").addEventListener(end, () => (brush.isDown = false));

loadModels().catch(showError);
