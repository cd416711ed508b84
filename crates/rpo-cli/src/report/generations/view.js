// The view of generations: pages of prompts, made of the data in the page; search, filters, order, and a comparison word by
// word. Until something is asked of it, the first page is the one that came as HTML, which `card` makes alike.
(() => {
  const view = document.getElementById("generations"), cards = view.querySelector(".cards");
  const data = JSON.parse(document.getElementById("generations-data").textContent);
  const { models, judges, values, prompts, draws } = data;
  const FOLD = 420, VERDICTS = 3, CELLS = 4e6;
  const OUTCOMES = { w: "won", l: "lost", t: "tie", f: "flip", u: "unparsed", ".": "not judged" };
  const TURNED = { w: "l", l: "w" };
  const rewards = prompts.some((prompt) => prompt.a.some((draws) => draws.some((answer) => answer[1] !== null)));
  const number = new Intl.NumberFormat("en");

  /** An element; properties that begin with on are listeners, others attributes. */
  const el = (tag, properties, ...children) => {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(properties ?? {})) {
      if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
      else if (value !== false && value != null) made.setAttribute(name, value === true ? "" : value);
    }
    made.append(...children.flat().filter((child) => child != null && child !== ""));
    return made;
  };

  // What is asked for, and what follows from it.
  const initial = () => ({
    words: [], shown: new Set(models.keys()), a: models.length === 2 ? 0 : -1, b: models.length === 2 ? 1 : -1,
    judge: -1, outcome: "", by: "number", of: 0, descending: false, diff: false, open: false, page: 0,
  });
  let state = initial(), found = [...prompts.keys()];
  const pages = () => Math.max(1, Math.ceil(found.length / data.page));
  const paired = () => state.a >= 0 && state.b >= 0 && state.a !== state.b;
  const chosen = (model) => paired() && (model === state.a || model === state.b);

  // Words of a prompt.
  const lower = [];
  const low = (i) => (lower[i] ??= {
    prompt: [prompts[i].p, ...(prompts[i].r ?? []), prompts[i].u ?? ""].join("\n").toLowerCase(),
    models: prompts[i].a.map((draws) => draws.map((answer) => answer[0]).join("\n").toLowerCase()),
  });
  const matches = (i) => {
    const { prompt, models } = low(i);
    const has = (word) => prompt.includes(word) || models.some((text, m) => state.shown.has(m) && text.includes(word));
    return state.words.every(has);
  };

  // Outcomes of a pair, as the first of the two has them, one letter for each draw.
  const outcomes = (prompt, judge, a, b) => {
    const [i, j] = a < b ? [a, b] : [b, a];
    const at = ((i * (2 * models.length - i - 1)) / 2 + j - i - 1) * draws;
    const letters = [...(prompt.v?.[judge] ?? "").slice(at, at + draws).padEnd(draws, ".")];
    return a < b ? letters : letters.map((letter) => TURNED[letter] ?? letter);
  };
  const judged = (i) => {
    if (!state.outcome || !paired()) return true;
    const of = state.judge < 0 ? [...judges.keys()] : [state.judge];
    return of.some((judge) => outcomes(prompts[i], judge, state.a, state.b).includes(state.outcome));
  };

  // What prompts are sorted by: a mean over draws, or null where it is not known.
  const length = (text) => { let n = 0; for (const _ of text) n++; return n; };
  const measure = (answer) => ({ length: () => length(answer[0]), reward: () => answer[1] })[state.by]?.()
    ?? (state.by.startsWith("v") ? answer[2][+state.by.slice(1)] ?? null : null);
  const mean = (i, model) => {
    const known = (prompts[i].a[model] ?? []).map(measure).filter((value) => value !== null);
    return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : null;
  };
  const key = (i) => {
    if (state.by === "number") return i;
    if (state.by === "prompt") return length(prompts[i].p);
    if (state.of >= 0) return mean(i, state.of);
    const [a, b] = [state.a, state.b].map((model) => (model < 0 ? null : mean(i, model)));
    return a === null || b === null ? null : a - b;
  };

  const find = () => {
    found = [...prompts.keys()].filter((i) => matches(i) && judged(i));
    const keys = new Map(found.map((i) => [i, key(i)])), sign = state.descending ? -1 : 1;
    // What has no value stays last either way.
    found.sort((i, j) => {
      const [x, y] = [keys.get(i), keys.get(j)];
      return (x === null) - (y === null) || (x === null ? 0 : sign * (x - y)) || i - j;
    });
  };

  // Words with the space behind them; scripts that write none between words go letter by letter.
  const WORD = /([\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}]|[\p{L}\p{M}\p{N}_'’]+|\S|^(?=\s))(\s*)/gu;
  const split = (text) => Array.from(text.matchAll(WORD), ([, word, space]) => ({ word, space, only: true }));

  /** Marks in two lists of words those that no longest common subsequence of both has; false if they are too long for one. */
  const compare = (a, b) => {
    const same = (i, j) => a[i].word === b[j].word;
    const keep = (i, j) => (a[i].only = b[j].only = false);
    let [start, n, m] = [0, a.length, b.length];
    while (start < n && start < m && same(start, start)) keep(start, start++);
    while (n > start && m > start && same(n - 1, m - 1)) keep(--n, --m);
    const [rows, columns] = [n - start, m - start];
    if (!rows || !columns) return true;
    if ((rows + 1) * (columns + 1) > CELLS) return false;
    // Lengths of the longest subsequences of what follows (i, j).
    const wide = columns + 1, longest = new Uint32Array((rows + 1) * wide);
    for (let i = rows - 1; i >= 0; i--)
      for (let j = columns - 1; j >= 0; j--) {
        const at = i * wide + j;
        longest[at] = same(start + i, start + j) ? longest[at + wide + 1] + 1 : Math.max(longest[at + wide], longest[at + 1]);
      }
    for (let i = 0, j = 0; i < rows && j < columns; ) {
      const at = i * wide + j;
      if (same(start + i, start + j)) keep(start + i++, start + j++);
      else if (longest[at + wide] >= longest[at + 1]) i++;
      else j++;
    }
    return true;
  };

  /** Compared words as nodes; runs of marked ones in one element of this kind. */
  const marked = (words, tag) => {
    const nodes = [];
    for (let i = 0; i < words.length; ) {
      let end = i + 1;
      while (end < words.length && words[end].only === words[i].only) end++;
      const text = words.slice(i, end).map(({ word, space }) => word + space).join(""), bare = text.trimEnd();
      if (words[i].only && bare) nodes.push(el(tag, null, bare), text.slice(bare.length));
      else nodes.push(text);
      i = end;
    }
    return nodes;
  };

  /** A text with the words of the search marked. */
  const highlighted = (text) => {
    if (!state.words.length) return [text];
    const escaped = state.words.map((word) => word.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&"));
    return text.split(new RegExp(`(${escaped.join("|")})`, "giu")).map((part, i) => (i % 2 ? el("mark", null, part) : part));
  };

  /** A text that is folded if it is long; `nodes` stand for it where it is compared. */
  const folded = (text, nodes) => {
    if (!text.trim()) return el("div", { class: "text quiet" }, "(nothing)");
    const whole = el("div", { class: "text", dir: "auto" }, nodes ?? highlighted(text));
    const letters = text.length > FOLD ? [...text] : [];
    if (nodes || letters.length <= FOLD + Math.floor(FOLD / 4)) return whole;
    const cut = letters.slice(0, FOLD).join(""), space = cut.search(/\s\S*$/u);
    const head = space < 0 ? cut : cut.slice(0, space);
    const [below, all] = [head.toLowerCase(), text.toLowerCase()];
    const open = state.open || state.words.some((word) => all.includes(word) && !below.includes(word));
    return el("details", { class: "fold", open },
      el("summary", null, el("span", { class: "text head", dir: "auto" }, highlighted(head), " …"),
        el("span", { class: "quiet less" }, "fold")),
      whole);
  };

  const shown = (value, digits) => (value === null || value === undefined ? "-" : value.toFixed(digits));
  const facts = ([text, reward, measured], draw) => [
    draw === null ? null : `draw ${draw + 1}`,
    rewards && reward !== null ? `reward ${shown(reward, 2)}` : null,
    ...values.slice(0, measured.length).map(([label, digits], i) => `${label} ${shown(measured[i], digits)}`),
    `${length(text)} characters`,
  ].filter((fact) => fact !== null);

  const sentence = (a, b, outcome) => ({
    w: `${a} beats ${b}`, l: `${b} beats ${a}`, t: `${a} and ${b} tie`, f: `${a} or ${b} by their order (a flip)`,
    u: `${a} or ${b}: unparsed`,
  })[outcome];

  /** What judges said: of the chosen pair, else of all. */
  const verdicts = (prompt) => {
    const pairs = paired() ? [[state.a, state.b]] : [...models.keys()].flatMap((a) =>
      [...models.keys()].filter((b) => b > a && state.shown.has(a) && state.shown.has(b)).map((b) => [a, b]));
    const lines = judges.flatMap(([label, trusted], judge) => pairs.map(([a, b]) => {
      const said = outcomes(prompt, judge, a, b).map((outcome, draw) => {
        const words = sentence(models[a][0], models[b][0], outcome);
        return words && (draws > 1 ? `draw ${draw + 1}: ` : "") + words;
      }).filter((words) => words);
      return said.length ? el("li", null, el("b", null, label), `${trusted ? "" : " (not to be trusted)"}: ${said.join("; ")}`) : null;
    })).filter((line) => line);
    const list = el("ul", { class: "verdicts" }, lines);
    if (!lines.length) return null;
    return lines.length > VERDICTS ? el("details", null, el("summary", null, `${lines.length} verdicts`), list) : list;
  };

  const card = (i) => {
    const prompt = prompts[i], n = i + 1;
    const comparing = state.diff && paired();
    const compared = { [state.a]: [], [state.b]: [] };
    let told = null;
    if (comparing) {
      const [ours, theirs] = [state.a, state.b].map((model) => prompt.a[model] ?? []);
      let [all, kept, fits] = [0, 0, true];
      for (let draw = 0; draw < Math.min(ours.length, theirs.length); draw++) {
        const [a, b] = [ours, theirs].map((draws) => split(draws[draw][0]));
        fits = compare(a, b) && fits;
        all += a.length + b.length;
        kept += [...a, ...b].filter((word) => !word.only).length;
        compared[state.a][draw] = marked(a, "del");
        compared[state.b][draw] = marked(b, "ins");
      }
      told = el("p", { class: "told quiet" }, `${all ? Math.round((100 * kept) / all) : 100} % of the words are common.`,
        fits ? "" : " Too long to compare word by word: only a common beginning and end are told apart from the rest.");
    }
    const order = comparing ? [state.a, state.b, ...[...models.keys()].filter((m) => !chosen(m))] : [...models.keys()];
    const there = order.filter((model) => state.shown.has(model) || (comparing && chosen(model)));
    // A row for each draw, so that what is compared lies side by side.
    const most = Math.max(0, ...prompt.a.map((draws) => draws.length));
    const sides = Array.from({ length: most }, (_, draw) => el("div", { class: "side" }, there.map((model) => {
      const [label, colour] = models[model], answer = prompt.a[model]?.[draw];
      return answer && el("div", { class: `answer ${colour}` }, el("h4", null, label),
        el("p", { class: "facts" }, facts(answer, most > 1 ? draw : null).flatMap((fact) => [el("span", null, fact), " "])),
        folded(answer[0], comparing && chosen(model) ? compared[model][draw] : undefined));
    })));
    return el("article", { class: "card", id: `p${n}`, tabindex: "-1", "aria-label": `Prompt ${n}` },
      el("h3", null, el("a", { href: `#p${n}` }, `Prompt ${n}`), prompt.u == null ? null : [" ", el("small", null, prompt.u)]),
      el("div", { class: "prompt" }, folded(prompt.p)),
      (prompt.r ?? []).map((reference) => el("div", { class: "reference" }, el("h4", null, "reference"), folded(reference))),
      told,
      sides,
      verdicts(prompt));
  };

  // Controls. Whatever changes goes through `update`.
  const option = (value, label) => el("option", { value }, label);
  const choice = (label, options, change) => {
    const select = el("select", { onchange: () => change(select.value) }, options.map(([value, name]) => option(value, name)));
    return { select, box: el("label", null, el("span", null, label), select) };
  };
  const named = models.map(([label], i) => [String(i), label]);
  const search = el("input", { type: "search", placeholder: "all of these words", oninput: () => later() });
  const count = el("output", { "aria-live": "polite" });
  let timer;
  const later = () => {
    clearTimeout(timer);
    timer = setTimeout(() => update({ words: search.value.toLowerCase().split(/\s+/).filter((word) => word) }), 120);
  };
  const other = (model) => [...models.keys()].find((m) => m !== model) ?? -1;
  const nobody = ["-1", "nobody"];
  const a = choice("compare", [nobody, ...named], (value) => {
    const model = +value;
    update({ a: model, b: model < 0 ? -1 : state.b < 0 || state.b === model ? other(model) : state.b });
  });
  const b = choice("with", [nobody, ...named], (value) => {
    const model = +value;
    update({ b: model, a: model < 0 ? -1 : state.a < 0 || state.a === model ? other(model) : state.a });
  });
  const judge = choice("judge", [["-1", "any"], ...judges.map(([label], i) => [String(i), label])], (value) => update({ judge: +value }));
  const outcome = choice("outcome", [["", "any"], ...Object.entries(OUTCOMES)], (outcome) => update({ outcome }));
  const measures = [["number", "number"], ["prompt", "length of the prompt"], ["length", "length of the answer"],
    ...(rewards ? [["reward", "reward"]] : []), ...values.map(([label], i) => [`v${i}`, label])];
  const by = choice("sort by", measures, (by) => update({ by, descending: by !== "number" }));
  const of = choice("of", [...named, ["-1", "first less second"]], (value) => update({ of: +value }));
  const direction = choice("order", [["up", "lowest first"], ["down", "highest first"]], (value) => update({ descending: value === "down" }));
  const check = (label, change) => {
    const input = el("input", { type: "checkbox", onchange: () => change(input.checked) });
    return { input, box: el("label", { class: "check" }, input, el("span", null, label)) };
  };
  const diff = check("mark the differences", (diff) => update({ diff }));
  const open = check("unfold long texts", (open) => update({ open }));
  const boxes = models.map(([label, colour], model) => {
    const box = check(label, (on) => {
      const shown = new Set(state.shown);
      if (on) shown.add(model); else shown.delete(model);
      update({ shown });
    });
    box.input.name = "shown";
    box.box.classList.add(colour);
    return box;
  });
  const legend = el("p", { class: "told quiet" });
  const reset = el("button", { type: "button", onclick: () => { search.value = ""; update(initial()); } }, "Reset");
  const pager = (place) => {
    const turn = (by, name) => el("button", { type: "button", onclick: () => turned(by, place === "below") }, name);
    const [previous, next] = [turn(-1, "Previous"), turn(1, "Next")];
    const input = el("input", { type: "number", min: 1, "aria-label": "Page", onchange: () => turned(input.value - 1 - state.page, false) });
    const all = el("span");
    return { previous, next, input, all, nav: el("nav", { class: "pager", "aria-label": `Pages of prompts, ${place}` }, previous,
      el("span", null, "page ", input, " of ", all), next) };
  };
  const pagers = [pager("above"), pager("below")];
  view.prepend(el("form", { class: "controls", role: "search", "aria-label": "Generations", onsubmit: (event) => event.preventDefault() },
    el("div", null, el("label", { class: "search" }, el("span", null, "search"), search), reset, count),
    models.length > 1 ? el("fieldset", null, el("legend", null, "shown"), boxes.map(({ box }) => box), open.box) : el("div", null, open.box),
    models.length > 1 ? el("div", null, a.box, b.box, diff.box) : null,
    models.length > 1 && judges.length ? el("div", null, judge.box, outcome.box) : null,
    el("div", null, by.box, of.box, direction.box),
    legend,
    el("p", { class: "told quiet" }, "Keys, while a prompt has the focus: j and k next and previous prompt, n and p next and previous page, d differences, / search.")),
  pagers[0].nav);
  view.append(pagers[1].nav);

  /** Puts what is asked for into the controls, and what was found into words. */
  const reflect = () => {
    const set = ({ select }, value) => (select.value = value);
    set(a, state.a); set(b, state.b); set(judge, state.judge); set(outcome, state.outcome);
    set(by, state.by); set(of, state.of); set(direction, state.descending ? "down" : "up");
    for (const { select } of [judge, outcome]) select.disabled = !paired();
    diff.input.disabled = !paired();
    of.select.disabled = state.by === "number" || state.by === "prompt";
    of.select.lastChild.disabled = !paired();
    diff.input.checked = state.diff;
    open.input.checked = state.open;
    boxes.forEach(({ input }, model) => (input.checked = state.shown.has(model)));
    const [first, second] = [state.a, state.b].map((model) => models[model]?.[0]);
    if (outcome.select.options.length > 2) {
      outcome.select.options[1].textContent = paired() ? `${first} beats ${second}` : OUTCOMES.w;
      outcome.select.options[2].textContent = paired() ? `${second} beats ${first}` : OUTCOMES.l;
    }
    of.select.lastChild.textContent = paired() ? `${first} less ${second}` : "first less second";
    const hint = "With two models to compare, their differences can be marked"
      + (judges.length ? " and prompts be filtered by what judges said of the two." : ".");
    legend.replaceChildren(...(!paired() && models.length > 1 ? [hint] : state.diff
      ? [el("del", null, "dashed"), ` only ${first} has it; `, el("ins", null, "double"), ` only ${second} has it.`] : []));
    const last = pages();
    count.textContent = `${number.format(found.length)} of ${number.format(prompts.length)} prompts`
      + (last > 1 ? `, page ${state.page + 1} of ${last}` : "");
    for (const { previous, next, input, all, nav } of pagers) {
      previous.disabled = state.page === 0;
      next.disabled = state.page === last - 1;
      input.value = state.page + 1;
      input.max = last;
      all.textContent = number.format(last);
      nav.hidden = last === 1;
    }
  };
  const draw = () => {
    const page = found.slice(state.page * data.page, (state.page + 1) * data.page);
    cards.replaceChildren(...(page.length ? page.map(card) : [el("p", { class: "quiet" }, "No prompt is as asked for.")]));
    reflect();
  };
  const update = (change) => {
    state = { ...state, page: 0, ...change };
    if (!paired()) state = { ...state, diff: false, outcome: "", of: Math.max(0, state.of) };
    find();
    draw();
  };
  const turned = (by, focus) => {
    const page = Math.min(Math.max(0, state.page + Math.round(by || 0)), pages() - 1);
    state = { ...state, page };
    draw();
    if (!focus) return;
    cards.firstElementChild?.focus({ preventScroll: true });
    pagers[0].nav.scrollIntoView();
  };
  /** Shows prompt `i`, whatever is filtered out. */
  const go = (i) => {
    if (!found.includes(i)) {
      search.value = "";
      state = initial();
      find();
    }
    const page = Math.floor(found.indexOf(i) / data.page);
    if (page !== state.page || !document.getElementById(`p${i + 1}`)) {
      state = { ...state, page };
      draw();
    }
    const at = document.getElementById(`p${i + 1}`);
    at.scrollIntoView();
    at.focus({ preventScroll: true });
  };
  const linked = () => {
    const n = Number(/^#p(\d+)$/.exec(location.hash)?.[1]);
    if (n >= 1 && n <= prompts.length) go(n - 1);
  };
  // Single letters are keys only where nobody types, and only within the answers.
  cards.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const at = document.activeElement.closest("article");
    const step = (by) => {
      const next = by > 0 ? at?.nextElementSibling : at?.previousElementSibling;
      if (next) { next.focus({ preventScroll: true }); next.scrollIntoView({ block: "nearest" }); return; }
      const page = state.page;
      turned(by, true);
      if (by < 0 && page !== state.page) { cards.lastElementChild.focus({ preventScroll: true }); cards.lastElementChild.scrollIntoView(); }
    };
    const keys = {
      j: () => step(1), k: () => step(-1), n: () => turned(1, true), p: () => turned(-1, true), "/": () => search.focus(),
      d: () => {
        const n = at?.id;
        if (!paired()) return;
        state = { ...state, diff: !state.diff };
        draw();
        document.getElementById(n)?.focus();
      },
    };
    if (keys[event.key]) { event.preventDefault(); keys[event.key](); }
  });
  addEventListener("hashchange", linked);
  reflect();
  linked();
  view.dataset.ready = "";
})();
