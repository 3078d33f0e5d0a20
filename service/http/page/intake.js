// The ways in which pictures come: chosen, photographed, dropped, pasted.

import { add } from "./classify.js";

const drop = document.querySelector("#drop");

for (const input of drop.querySelectorAll("input")) {
  input.onchange = () => {
    add([...input.files]);
    input.value = ""; // so that the same file can be chosen again
  };
}

document.ondragover = (event) => {
  event.preventDefault();
  drop.classList.add("over");
};
document.ondragleave = (event) => {
  if (event.relatedTarget === null) drop.classList.remove("over");
};
document.ondrop = (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  add([...event.dataTransfer.files]);
};
document.onpaste = (event) => add([...event.clipboardData.files]);
