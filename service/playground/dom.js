/** Short ways to the elements of the page. */

export const byId = (id) => document.getElementById(id);

/** A copy of what a template holds. */
export function copyOf(template) {
  return byId(template).content.firstElementChild.cloneNode(true);
}

export function element(tag, text, className = "") {
  return Object.assign(document.createElement(tag), { textContent: text, className });
}
