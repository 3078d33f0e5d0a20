// The API key: this tab keeps it, and each request carries it.

const NAME = "inferception-key";

/** Return the header that carries the key, or no header without a key. */
export function keyHeader() {
  const key = sessionStorage.getItem(NAME);
  return key ? { "X-API-Key": key } : {};
}

/** Show the field for the key. The page starts anew with the key that the reader enters. */
export function askForKey() {
  const form = document.querySelector("#key");
  form.hidden = false;
  form.onsubmit = (event) => {
    event.preventDefault();
    sessionStorage.setItem(NAME, form.querySelector("input").value.trim());
    location.reload();
  };
}
