// The same question as a command or a program, to be copied.

import { element } from "./element.js";
import { keyHeader } from "./key.js";
import { pathOf } from "./question.js";

const dialog = document.querySelector("#code");
const text = dialog.querySelector("pre");
const told = dialog.querySelector("span");

const LANGUAGES = {
  curl: (file, url) => {
    const key = needsKey() ? ' -H "X-API-Key: $KEY"' : "";
    const name = `'@${file.name.replaceAll("'", "'\\''")}'`;
    return `curl --data-binary ${name} -H 'Content-Type: ${typeOf(file)}'${key} '${url}'`;
  },
  Python: (file, url) => `import httpx2

with open(${JSON.stringify(file.name)}, "rb") as picture:
    headers = {"Content-Type": ${JSON.stringify(typeOf(file))}${needsKey() ? ', "X-API-Key": KEY' : ""}}
    answer = httpx2.post(${JSON.stringify(url)}, content=picture.read(), headers=headers)
answer.raise_for_status()
print(answer.json()["predictions"])`,
  tritonclient: (file, url, model) => `import numpy as np
import tritonclient.http as triton

with triton.InferenceServerClient(${JSON.stringify(new URL(url).host)}, ssl=${url.startsWith("https:") ? "True" : "False"}) as client:
    files = np.array([open(${JSON.stringify(file.name)}, "rb").read()], dtype=np.object_)
    images = triton.InferInput("images", [len(files)], "BYTES")
    images.set_data_from_numpy(files)
    best = triton.InferRequestedOutput("probabilities", class_count=5)
    answer = client.infer(${JSON.stringify(model.name)}, [images], "${model.version}", [best]${needsKey() ? ', headers={"X-API-Key": KEY}' : ""})
    print(answer.as_numpy("probabilities"))  # score:index:label`,
};

const needsKey = () => "X-API-Key" in keyHeader();
const typeOf = (file) => file.type || "application/octet-stream";

/** Return a button for each language. It shows how to ask the model for this file. */
export function codeButtons(file, model) {
  const buttons = Object.keys(LANGUAGES).map((language) =>
    element("button", { type: "button", text: language, onclick: () => open(language, file, model) }),
  );
  return element("p", { className: "codes" }, "Copy as ", ...buttons);
}

function open(language, file, model) {
  dialog.querySelector("h2").textContent = `Ask ${model.name} with ${language}`;
  text.textContent = LANGUAGES[language](file, new URL(pathOf(model), location).href, model);
  told.textContent = "";
  dialog.showModal();
}

dialog.querySelector("#copy").onclick = async () => {
  try {
    await navigator.clipboard.writeText(text.textContent);
    told.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(text); // without HTTPS a browser lets no page write to the clipboard
    told.textContent = "Selected: press Ctrl+C or ⌘C";
  }
};
