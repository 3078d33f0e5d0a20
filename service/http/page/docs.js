// Draws the API's description, and sends the key that the first page asked for.

import { keyHeader } from "./key.js";

window.SwaggerUIBundle({
  dom_id: "#swagger-ui",
  url: "openapi.json",
  requestInterceptor: (request) => Object.assign(request, { headers: { ...request.headers, ...keyHeader() } }),
});
