// Which part of a picture a model sees, as the service cuts it.

/** Return left, top, width and height of that part, as fractions of an upright picture of these pixels. */
export function cropOf(width, height, { input, preprocessing }) {
  if (preprocessing.crop_mode === "squash") return { left: 0, top: 0, width: 1, height: 1 };
  const resized = Math.floor(input.height / preprocessing.crop_pct) / Math.min(width, height);
  const part = { width: input.width / (width * resized), height: input.height / (height * resized) };
  return { left: (1 - part.width) / 2, top: (1 - part.height) / 2, ...part };
}

/** Say in words which part that is. */
export function cropInWords({ name, input, preprocessing }) {
  const squashed = preprocessing.crop_mode === "squash";
  const part = squashed
    ? "the whole picture, squashed"
    : `the middle, ${100 * preprocessing.crop_pct} % of the shorter side`;
  return `${name} sees ${part} to ${input.width} × ${input.height} pixels`;
}
