// Sorts tables by a click on a column's name, and saves them as CSV. Without it everything is there, in its first order.
"use strict";
for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0], first = [...body.rows], heads = [...table.tHead.rows[0].cells];
  // What is only heard of a cell is no part of its text.
  const text = (cell) => (cell.querySelector("s") ?? cell).textContent.trim();
  const names = heads.map(text);
  const value = (row, column) => text(row.cells[column]);
  const compare = {
    text: (a, b) => a.localeCompare(b),
    number: (a, b) => parseFloat(a) - parseFloat(b),
  };
  heads.forEach((head, column) => {
    const kind = head.dataset.kind;
    if (!names[column] || first.length < 2) return;
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
  const box = table.closest(".scroll"), save = document.createElement("button");
  // What begins like a formula is none; struck-out cells say so.
  const plain = (field) => (/^([=+@\t\r]|-[^\d.])/.test(field) ? `'${field}` : field);
  const quoted = (field) => (/[",\r\n]/.test(field) ? `"${field.replaceAll('"', '""')}"` : field);
  const cells = (row) => [...row.cells].map((cell) => text(cell) + (cell.querySelector("s") ? " (struck out)" : ""));
  save.type = "button";
  save.className = "save";
  save.textContent = "Save as CSV";
  save.setAttribute("aria-label", `Save as CSV: ${box.getAttribute("aria-label")}`);
  save.onclick = () => {
    const lines = [names, ...[...body.rows].map(cells)].map((row) => row.map((field) => quoted(plain(field))).join(","));
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([lines.join("\r\n") + "\r\n"], { type: "text/csv" }));
    link.download = `${box.getAttribute("aria-label").toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-")}.csv`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };
  const note = box.nextElementSibling;
  (note?.matches(".note") ? note : box).after(save);
}
const overflow = () => {
  for (const box of document.querySelectorAll(".scroll")) box.classList.toggle("more", box.scrollWidth > box.clientWidth + 1);
};
addEventListener("resize", overflow);
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((folded) => (folded.open = true)));
overflow();
