
"use strict";
(() => {
  const facts = JSON.parse(document.getElementById("facts").textContent);
  const stage = document.getElementById("stage");
  const panel = document.getElementById("panel");
  const searchField = document.getElementById("wanted");
  const searchStatus = document.getElementById("found");
  const svg = stage.querySelector("svg");
  const drawing = svg.querySelector("g"); // Graphviz puts everything into one
  const NS = "http://www.w3.org/2000/svg";
  document.documentElement.classList.add("live");
  svg.querySelectorAll("title").forEach((title) => title.remove()); // browsers show them as tooltips

  // What is drawn, by the numbers that its classes hold

  const numbers = (element, kind) =>
    [...element.classList].filter((name) => name.startsWith(`${kind}-`)).map((name) => Number(name.slice(kind.length + 1)));
  const boxes = [...svg.querySelectorAll(".layer")];
  const boxOf = new Map(); // of each layer
  for (const box of boxes) {
    for (const number of numbers(box, "layer")) boxOf.set(number, box);
  }
  const layersIn = (box) => numbers(box, "layer").map((number) => facts.layers[number]).filter(Boolean);
  boxes.sort((one, other) => Math.min(...numbers(one, "layer")) - Math.min(...numbers(other, "layer")));
  svg.setAttribute("tabindex", "-1");
  for (const box of boxes) {
    drawing.append(box); // in the order in which the layers run: so Tab goes
    box.setAttribute("tabindex", "0");
    box.setAttribute("role", "button");
    box.setAttribute("aria-label", layersIn(box).map((layer) => `${layer.name}, ${layer.type}`).join("; "));
  }

  // Where one looks: x and y of the upper left corner in units of the drawing, and pixels a unit

  const box0 = svg.viewBox.baseVal;
  const all = { x: box0.x, y: box0.y, width: box0.width, height: box0.height };
  const view = { x: all.x, y: all.y, scale: 1 };
  const LARGEST = 8;
  const ROOM = 12; // pixels around what is brought into view
  svg.setAttribute("width", all.width);
  svg.setAttribute("height", all.height);
  let isDrawn = true;

  const scaleToFit = (area) =>
    Math.min((stage.clientWidth - 2 * ROOM) / area.width, (stage.clientHeight - 2 * ROOM) / area.height);

  function look(x, y, scale) {
    view.scale = Math.min(Math.max(scale, Math.min(scaleToFit(all), 1) / 2), LARGEST);
    const width = stage.clientWidth / view.scale;
    const height = stage.clientHeight / view.scale;
    // some of the drawing always stays in sight
    view.x = Math.min(Math.max(x, all.x - width / 2), all.x + all.width - width / 2);
    view.y = Math.min(Math.max(y, all.y - height / 2), all.y + all.height - height / 2);
    if (!isDrawn) return;
    isDrawn = false;
    requestAnimationFrame(() => {
      isDrawn = true;
      // a transform moves what is already painted; another viewBox would lay out hundreds of layers again
      const [right, down] = [(all.x - view.x) * view.scale, (all.y - view.y) * view.scale];
      svg.style.transform = `translate(${right}px, ${down}px) scale(${view.scale})`;
    });
  }
  function centre(area, scale) {
    const x = area.x + area.width / 2 - stage.clientWidth / scale / 2;
    look(x, area.y + area.height / 2 - stage.clientHeight / scale / 2, scale);
  }
  const showAll = () => centre(all, Math.min(scaleToFit(all), 1.6));
  function begin() {
    const whole = Math.min(scaleToFit(all), 1.6);
    if (whole >= 0.6) return showAll();
    // too long to be read as a whole: its beginning, in a size that can be read
    const across = Math.min(Math.max((stage.clientWidth - 2 * ROOM) / all.width, 0.6), 1.2);
    const free = stage.clientWidth / across - all.width;
    return look(all.x - (free > 0 ? free / 2 : ROOM / across), all.y - ROOM / across, across);
  }
  const move = (right, down) => look(view.x + right / view.scale, view.y + down / view.scale, view.scale);
  function zoom(factor, at) {
    const area = stage.getBoundingClientRect();
    const [x, y] = at ? [at.x - area.left, at.y - area.top] : [area.width / 2, area.height / 2];
    const [fixedX, fixedY] = [view.x + x / view.scale, view.y + y / view.scale];
    const scale = Math.min(Math.max(view.scale * factor, Math.min(scaleToFit(all), 1) / 2), LARGEST);
    look(fixedX - x / scale, fixedY - y / scale, scale);
  }
  const places = new Map(); // asked for after a change, each costs a layout of all
  function placeOf(element) {
    if (!places.has(element)) {
      const inner = element.getBBox(); // in units of the drawing's group, which Graphviz moves and scales
      const matrix = drawing.transform.baseVal.consolidate().matrix;
      const corner = new DOMPoint(inner.x, inner.y).matrixTransform(matrix);
      const width = inner.width * matrix.a;
      places.set(element, { inner, x: corner.x, y: corner.y, width, height: inner.height * matrix.d });
    }
    return places.get(element);
  }
  function around(elements) {
    const places = elements.map(placeOf);
    const x = Math.min(...places.map((place) => place.x));
    const y = Math.min(...places.map((place) => place.y));
    const right = Math.max(...places.map((place) => place.x + place.width));
    const below = Math.max(...places.map((place) => place.y + place.height));
    return { x, y, width: right - x, height: below - y };
  }
  function bringIntoView(element) {
    const place = placeOf(element);
    const [width, height] = [stage.clientWidth / view.scale, stage.clientHeight / view.scale];
    const inside =
      place.x >= view.x && place.y >= view.y && place.x + place.width <= view.x + width && place.y + place.height <= view.y + height;
    if (!inside || view.scale < 0.5) centre(place, Math.min(Math.max(view.scale, 0.9), Math.max(scaleToFit(place), 0.3)));
  }

  // The panel: texts from the file go in as texts only

  function make(tag, content = "", name = "") {
    const element = document.createElement(tag);
    if (name) element.className = name;
    for (const part of [content].flat()) element.append(part);
    return element;
  }
  function list(pairs) {
    const known = pairs.filter(([, value]) => value);
    return make("dl", known.flatMap(([term, value]) => [make("dt", term), make("dd", value)]));
  }
  function paramButton(number, text) {
    const button = make("button", text, "swatch");
    button.type = "button";
    button.dataset.param = number;
    const chip = svg.querySelector(`.chip.param-${number}`);
    const shape = chip && [...chip.querySelectorAll("path, polygon")].find((part) => part.getAttribute("fill") !== "none");
    if (shape) button.style.borderLeftColor = shape.getAttribute("fill");
    button.addEventListener("click", () => choose(number));
    return button;
  }
  function layerButton(number) {
    const button = make("button", facts.layers[number].name);
    button.type = "button";
    button.dataset.layer = number;
    button.addEventListener("click", () => goTo(boxOf.get(number)));
    return button;
  }
  function blobOf(use) {
    const param = facts.params[use.param];
    const others = param.users.length - 1;
    const notes = [use.shape, use.count, param.trained];
    if (others) notes.push(`shared by ${param.users.length}`);
    return make("li", [paramButton(use.param, param.name || use.role), make("span", notes.filter(Boolean).join(" · "), "note")], "blob");
  }
  function sectionOf(layer) {
    const section = make("section", make("h2", layer.name));
    section.append(make("p", [layer.type, layer.settings].filter(Boolean).join(" · "), "kind"));
    section.append(
      list([
        ["in", layer.inputs],
        ["out", layer.outputs],
        ["parameters", layer.parameters],
        ["multiply-adds", layer.multiplyAdds],
        ["memory", layer.memory],
        ["phase", layer.phase],
        ["at", layer.place],
      ]),
    );
    if (layer.uses.length) section.append(make("h3", "Parameters"), make("ul", layer.uses.map(blobOf)));
    section.append(make("h3", "prototxt"), make("pre", layer.text));
    return section;
  }
  function overview() {
    const shared = facts.params.map((param, number) => [param, number]).filter(([param]) => param.users.length > 1);
    const parts = [make("h2", facts.name), list(facts.totals)];
    if (shared.length) {
      const entries = shared.map(([param, number]) =>
        make("li", [paramButton(number, param.title), make("span", `${param.shape} · ${param.users.length} layers`, "note")], "blob"),
      );
      parts.push(make("h3", "Shared parameters"), make("ul", entries));
    }
    parts.push(make("h3", "Moving about"));
    const keys = [
      ["drag, arrows", "move"],
      ["wheel, pinch, + \u2212", "larger, smaller"],
      ["0", "the whole net"],
      ["/", "find"],
      ["Tab", "next layer"],
      ["Esc", "let go"],
    ];
    parts.push(make("dl", keys.flatMap(([key, what]) => [make("dt", make("kbd", key)), make("dd", what)])));
    parts.push(make("p", "Point at a layer to see its details; click it to keep them. Click a parameter to highlight the layers that use it.", "note"));
    return parts;
  }
  function parameterPart(number) {
    const param = facts.params[number];
    const users = [...new Set(param.users)].filter((user) => facts.layers[user]);
    const part = make("section", make("h2", param.title));
    const alone = users.length === 1;
    part.append(make("p", alone ? "used by one layer" : `one tensor, used by ${users.length} layers`, "kind"));
    part.append(list([["shape", param.shape], ["numbers", param.count], ["training", param.trained], ["owner", param.owner]]));
    part.append(make("h3", "Used by"), make("ul", users.map((user) => make("li", layerButton(user))), "users"));
    if (!alone) {
      const button = make("button", "Show them all");
      button.type = "button";
      button.id = "all-users";
      button.addEventListener("click", () => {
        const area = around(usersOf(number));
        centre(area, Math.min(scaleToFit(area), 1.6));
      });
      part.append(make("p", button));
    }
    return part;
  }

  // What is looked at: under the pointer, held by a click, a parameter, what was searched

  let under = null; // a box
  let held = null; // a box
  let chosen = null; // a parameter's number
  let matches = [];
  let current = -1;

  const usersOf = (number) => [...new Set(facts.params[number].users.map((user) => boxOf.get(user)).filter(Boolean))];

  function halo(element, kind) {
    const place = placeOf(element).inner;
    const ring = document.createElementNS(NS, "rect");
    const edge = kind === "part" ? 1 : 3;
    ring.setAttribute("class", `halo ${kind}`);
    for (const [name, value] of [["x", place.x - edge], ["y", place.y - edge], ["width", place.width + 2 * edge], ["height", place.height + 2 * edge], ["rx", 6]]) {
      ring.setAttribute(name, value);
    }
    drawing.append(ring);
  }
  function mark() {
    svg.querySelectorAll(".halo").forEach((ring) => ring.remove());
    svg.querySelectorAll(".near").forEach((wire) => wire.classList.remove("near"));
    svg.querySelectorAll(".chosen").forEach((part) => part.classList.remove("chosen"));
    svg.classList.toggle("choosing", chosen !== null || matches.length > 0);
    if (chosen !== null) {
      for (const part of svg.querySelectorAll(`.param-${chosen}`)) part.classList.add("chosen");
      for (const box of usersOf(chosen)) halo(box, "user");
      for (const chip of svg.querySelectorAll(`.chip.param-${chosen}`)) halo(chip, "part");
    }
    for (const box of matches) {
      box.classList.add("chosen");
      halo(box, "found");
    }
    const seen = under || held;
    if (!seen) return;
    halo(seen, "seen");
    for (const layer of layersIn(seen)) {
      for (const blob of layer.blobs) {
        for (const wire of svg.querySelectorAll(`.wire.blob-${blob}`)) wire.classList.add("near");
      }
    }
  }
  function tell() {
    const seen = under || held;
    if (seen) panel.replaceChildren(...layersIn(seen).map(sectionOf));
    else if (chosen !== null) panel.replaceChildren(parameterPart(chosen));
    else panel.replaceChildren(...overview());
    panel.scrollTop = 0;
  }
  function show() {
    mark();
    tell();
  }
  function hold(box) {
    held = box;
    under = null;
    show();
  }
  function goTo(box) {
    if (!box) return;
    hold(box);
    bringIntoView(box);
  }
  function choose(number) {
    [chosen, held, under] = [number, null, null];
    forget();
    show();
  }
  function letGo() {
    [chosen, held, under] = [null, null, null];
    searchField.value = "";
    forget();
    show();
  }

  // Search

  function forget() {
    [matches, current] = [[], -1];
    searchStatus.value = "";
  }
  function textOf(box) {
    const words = layersIn(box).flatMap((layer) => [layer.name, layer.type, ...layer.uses.map((use) => facts.params[use.param].name)]);
    return words.join("\n").toLowerCase();
  }
  const texts = new Map(boxes.map((box) => [box, textOf(box)]));
  function search() {
    const text = searchField.value.trim().toLowerCase();
    forget();
    chosen = null;
    if (text) {
      matches = boxes.filter((box) => texts.get(box).includes(text));
      // what is called just so comes first
      const exact = (box) => layersIn(box).some((layer) => layer.name.toLowerCase() === text);
      matches.sort((one, other) => exact(other) - exact(one));
      searchStatus.value = matches.length ? `1 of ${matches.length}` : "none";
    }
    [held, under] = [null, null];
    if (matches.length) goToMatch(0);
    else show();
  }
  function goToMatch(number) {
    current = (number + matches.length) % matches.length;
    searchStatus.value = `${current + 1} of ${matches.length}`;
    goTo(matches[current]);
  }
  document.getElementById("search").addEventListener("submit", (event) => event.preventDefault());
  searchField.addEventListener("input", search);
  searchField.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && matches.length) {
      event.preventDefault();
      goToMatch(current + (event.shiftKey ? -1 : 1));
    } else if (event.key === "Escape") {
      letGo();
      stage.focus({ preventScroll: true });
    }
  });

  // Pointers: one drags, two pinch

  const pointers = new Map();
  let start = null; // where the only pointer went down
  let dragged = false;
  stage.addEventListener("pointerdown", (event) => {
    if (event.pointerType === "mouse" && event.button !== 0) return;
    pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    if (pointers.size === 1) [start, dragged] = [{ x: event.clientX, y: event.clientY }, false];
  });
  window.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId);
    if (!before) return;
    const now = { x: event.clientX, y: event.clientY };
    if (pointers.size === 1) {
      if (!dragged && Math.hypot(now.x - start.x, now.y - start.y) < 5) return;
      if (!dragged) {
        dragged = true;
        stage.classList.add("moving");
        stage.setPointerCapture(event.pointerId);
      }
      move(before.x - now.x, before.y - now.y);
    } else if (pointers.size === 2) {
      dragged = true;
      const other = [...pointers].find(([id]) => id !== event.pointerId)[1];
      const middle = (one) => ({ x: (one.x + other.x) / 2, y: (one.y + other.y) / 2 });
      const apart = (one) => Math.hypot(one.x - other.x, one.y - other.y) || 1;
      zoom(apart(now) / apart(before), middle(before));
      move(middle(before).x - middle(now).x, middle(before).y - middle(now).y);
    }
    pointers.set(event.pointerId, now);
  });
  for (const kind of ["pointerup", "pointercancel"]) {
    window.addEventListener(kind, (event) => {
      pointers.delete(event.pointerId);
      if (!pointers.size) stage.classList.remove("moving");
    });
  }
  stage.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      const pixels = event.deltaY * (event.deltaMode === 1 ? 16 : event.deltaMode === 2 ? stage.clientHeight : 1);
      zoom(Math.exp(-pixels * (event.ctrlKey ? 0.01 : 0.0016)), { x: event.clientX, y: event.clientY });
    },
    { passive: false },
  );
  svg.addEventListener("pointerover", (event) => {
    if (event.pointerType === "touch" || pointers.size) return;
    const box = event.target.closest(".layer");
    if (box === under || (!box && !held)) return; // what was told last stays, so that it can be read
    under = box;
    show();
  });
  stage.addEventListener("click", (event) => {
    if (dragged) return;
    const chip = event.target.closest(".chip");
    const box = event.target.closest(".layer");
    if (chip) choose(numbers(chip, "param")[0]);
    else if (box) hold(box);
    else letGo();
  });

  // Keys

  svg.addEventListener("focusin", (event) => {
    const box = event.target.closest(".layer");
    if (!box || !box.matches(":focus-visible")) return; // a click focuses too
    goTo(box);
  });
  stage.addEventListener("scroll", () => stage.scrollTo(0, 0)); // browsers scroll to what has the focus
  stage.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = event.shiftKey ? 400 : 80;
    const deeds = {
      ArrowLeft: () => move(-step, 0),
      ArrowRight: () => move(step, 0),
      ArrowUp: () => move(0, -step),
      ArrowDown: () => move(0, step),
      PageUp: () => move(0, -0.9 * stage.clientHeight),
      PageDown: () => move(0, 0.9 * stage.clientHeight),
      Home: begin,
      Enter: () => event.target.closest(".layer") && hold(event.target.closest(".layer")),
    };
    if (!deeds[event.key]) return;
    event.preventDefault();
    deeds[event.key]();
  });
  document.addEventListener("keydown", (event) => {
    if (event.target === searchField || event.ctrlKey || event.metaKey || event.altKey) return;
    const deeds = {
      "+": () => zoom(1.25),
      "=": () => zoom(1.25),
      "-": () => zoom(0.8),
      0: showAll,
      Escape: letGo,
      "/": () => {
        searchField.focus();
        searchField.select();
      },
    };
    if (!deeds[event.key]) return;
    event.preventDefault();
    deeds[event.key]();
  });
  document.getElementById("larger").addEventListener("click", () => zoom(1.25));
  document.getElementById("smaller").addEventListener("click", () => zoom(0.8));
  document.getElementById("whole").addEventListener("click", showAll);

  // Light and dark: a drawing of the other kind has the brightness of its colours turned round

  const canvas = document.createElement("canvas").getContext("2d");
  function partsOf(colour) {
    canvas.fillStyle = "#000000";
    canvas.fillStyle = colour; // any name or notation becomes #rrggbb
    return [1, 3, 5].map((at) => parseInt(canvas.fillStyle.slice(at, at + 2), 16) / 255);
  }
  function brightness(parts) {
    // as the eye takes it, 0 to 1 (CIE L*)
    const linear = parts.map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    const light = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
    return light <= 0.008856 ? 9.033 * light : 1.16 * Math.cbrt(light) - 0.16;
  }
  function turnRound(colour) {
    const parts = partsOf(colour);
    // not all the way to black: the page's dark is not black either
    const targetBrightness = 0.97 - 0.83 * brightness(parts);
    const grey = (Math.max(...parts) + Math.min(...parts)) / 2;
    const vivid = parts.map((part) => part - grey);
    const shade = (light) => vivid.map((part) => Math.min(Math.max(light + part * (1 - Math.abs(2 * light - 1)) * 1.6, 0), 1));
    let [dark, bright] = [0, 1];
    for (let step = 0; step < 16; step += 1) {
      const middle = (dark + bright) / 2;
      if (brightness(shade(middle)) < targetBrightness) dark = middle;
      else bright = middle;
    }
    return `#${shade(dark).map((part) => Math.round(255 * part).toString(16).padStart(2, "0")).join("")}`;
  }
  const turnedRound = new Map();
  function turned(colour) {
    if (!turnedRound.has(colour)) turnedRound.set(colour, turnRound(colour));
    return turnedRound.get(colour);
  }
  const painted = [];
  for (const element of drawing.querySelectorAll("*")) {
    for (const name of ["fill", "stroke"]) {
      const colour = element.getAttribute(name);
      if (colour && colour !== "none" && colour !== "transparent") painted.push([element, name, colour]);
    }
    // black is what stands nowhere
    if (element.tagName === "text" && !element.hasAttribute("fill")) painted.push([element, "fill", "black"]);
  }
  const ground = drawing.querySelector(":scope > polygon, :scope > path");
  const groundColour = ground ? ground.getAttribute("fill") : "white";
  const drawnDark = brightness(partsOf(groundColour)) < 0.5;
  const paper = () => getComputedStyle(document.documentElement).getPropertyValue("--paper").trim();
  const wantsDark = window.matchMedia("(prefers-color-scheme: dark)");
  function paint() {
    const turn = wantsDark.matches !== drawnDark;
    turnedRound.set(groundColour, paper());
    for (const [element, name, colour] of painted) {
      element.setAttribute(name, turn || colour === groundColour ? turned(colour) : colour);
    }
    show();
  }
  wantsDark.addEventListener("change", paint);

  let width = stage.clientWidth;
  new ResizeObserver(() => {
    // what stands in the middle stays there
    const shift = (stage.clientWidth - width) / 2 / view.scale;
    width = stage.clientWidth;
    look(view.x - shift, view.y, view.scale);
  }).observe(stage);
  paint();
  begin();
})();
