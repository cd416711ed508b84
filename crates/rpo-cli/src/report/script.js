// Sorts tables by a click on a column's name, and filters the answers. Without it everything is there, in its first order.
"use strict";
for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0], first = [...body.rows], heads = [...table.tHead.rows[0].cells];
  const value = (row, column) => row.cells[column].dataset.v ?? row.cells[column].textContent.trim();
  const compare = {
    text: (a, b) => a.localeCompare(b),
    number: (a, b) => parseFloat(a) - parseFloat(b),
  };
  heads.forEach((head, column) => {
    const kind = head.dataset.kind;
    if (!head.textContent.trim() || first.length < 2) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    const cycle = kind === "number" ? ["descending", "ascending", null] : ["ascending", "descending", null];
    button.onclick = () => {
      const order = cycle[(cycle.indexOf(head.getAttribute("aria-sort")) + 1) % 3];
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      if (order) head.setAttribute("aria-sort", order);
      // What has no number stays last either way.
      const known = (row) => kind !== "number" || !Number.isNaN(parseFloat(value(row, column)));
      const sign = order === "descending" ? -1 : 1;
      const by = (a, b) =>
        known(b) - known(a) || (known(a) && sign * compare[kind](value(a, column), value(b, column)));
      body.append(...(order ? [...first].sort(by) : first));
    };
  });
}
for (const search of document.querySelectorAll(".search")) {
  const input = search.querySelector("input"), count = search.querySelector("output");
  const rows = [...document.getElementById(input.getAttribute("aria-controls")).tBodies[0].rows];
  const texts = rows.map((row) => row.textContent.toLowerCase());
  const filter = () => {
    const words = input.value.toLowerCase().split(/\s+/);
    rows.forEach((row, i) => (row.hidden = !words.every((word) => texts[i].includes(word))));
    count.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} prompts`;
  };
  input.oninput = filter;
  search.hidden = false;
  filter();
}
const overflow = () => {
  for (const box of document.querySelectorAll(".scroll")) box.classList.toggle("more", box.scrollWidth > box.clientWidth + 1);
};
addEventListener("resize", overflow);
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((folded) => (folded.open = true)));
overflow();
