// A small copy of a picture, made by the browser, with a frame round what each model sees.

import { cropInWords, cropOf } from "./crop.js";
import { element } from "./element.js";

const SIDE = 320; // pixels of the longer side

/** Return a figure that shows the file once the browser has read it, and what each of the models sees of it. */
export function thumbnail(file, models) {
  const canvas = element("canvas", {
    width: SIDE,
    height: SIDE * 0.75,
    role: "img",
    ariaLabel: `Thumbnail of ${file.name}`,
  });
  const framed = element("div", { className: "framed" }, canvas);
  const words = element("figcaption", { text: models.map(cropInWords).join("; ") });
  draw(canvas, file)
    .then((size) => framed.append(...models.map((model, place) => frame(cropOf(...size, model), place))))
    .catch(() => words.replaceChildren("This browser can't show the file."));
  return element("figure", {}, framed, words);
}

async function draw(canvas, file) {
  const picture = await createImageBitmap(file);
  const size = [picture.width, picture.height];
  const scale = Math.min(1, SIDE / Math.max(...size));
  [canvas.width, canvas.height] = size.map((pixels) => Math.max(1, Math.round(pixels * scale)));
  canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
  picture.close();
  return size;
}

function frame(crop, place) {
  const made = element("div", { className: `frame sees-${place}` });
  for (const [side, fraction] of Object.entries(crop)) made.style[side] = `${100 * fraction}%`;
  return made;
}
