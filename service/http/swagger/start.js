/** Shows the API; requests go to where this page is from, also if a proxy put a prefix before it. */

const prefix = new URL(".", document.baseURI).pathname.replace(/\/$/, "");
const description = await (await fetch("openapi.json")).json();

SwaggerUIBundle({
  spec: { ...description, servers: [{ url: prefix || "/" }] },
  domNode: document.querySelector("#swagger-ui"),
  deepLinking: true,
  persistAuthorization: true,
  // It would otherwise send the document to its makers' validator.
  validatorUrl: null,
});
