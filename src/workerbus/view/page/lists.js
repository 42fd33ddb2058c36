// A list of any length: only the rows that can be seen are in the document, and only what differs in them is written.

export function put(element, text) {
  if (element.firstChild === null) element.append(text);
  else if (element.firstChild.data !== text) element.firstChild.data = text;
}

export function element(tag, className = "", text = null) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== null) made.append(text);
  return made;
}

export class List {
  // options: make(row) fills an empty row once; fill(row, item, number) writes an item into it; open(item), and
  // fold(item, shut) where items can be folded; key(item).
  constructor(box, options) {
    this.box = box;
    this.options = options;
    this.items = [];
    this.chosen = null;
    this.used = [];
    this.space = element("div", "rows");
    this.empty = element("div", "empty");
    box.append(this.empty, this.space);
    box.addEventListener("scroll", () => this.draw(), { passive: true });
    box.addEventListener("keydown", (event) => this.press(event));
    box.addEventListener("click", (event) => this.click(event));
    new ResizeObserver(() => this.draw()).observe(box);
  }

  get height() {
    return matchMedia("(max-width: 860px)").matches ? 38 : 30;
  }

  show(items, nothing) {
    this.items = items;
    this.empty.hidden = items.length > 0;
    put(this.empty, nothing);
    this.draw();
  }

  draw() {
    const height = this.height;
    const whole = `${this.items.length * height}px`;
    if (this.space.style.height !== whole) this.space.style.height = whole;
    const first = Math.max(0, Math.floor(this.box.scrollTop / height) - 2);
    const last = Math.min(this.items.length, first + Math.ceil(this.box.clientHeight / height) + 4);
    while (this.used.length < last - first) {
      const row = element("div", "row " + this.options.rowClass);
      row.id = `${this.box.id}-${this.used.length}`;
      row.setAttribute("role", this.options.role);
      row.cells = this.options.make(row);
      this.used.push(row);
      this.space.append(row);
    }
    let active = "";
    this.used.forEach((row, n) => {
      const number = first + n;
      row.hidden = number >= last;
      if (row.hidden) return;
      const item = this.items[number];
      row.item = item;
      const top = `${number * height}px`;
      if (row.style.top !== top) row.style.top = top;
      const isChosen = this.options.key(item) === this.chosen;
      if (isChosen) active = row.id;
      row.setAttribute("aria-selected", String(isChosen));
      this.options.fill(row.cells, item, row);
    });
    if (active) this.box.setAttribute("aria-activedescendant", active);
    else this.box.removeAttribute("aria-activedescendant");
  }

  choose(number) {
    if (!this.items.length) return;
    const n = Math.max(0, Math.min(this.items.length - 1, number));
    this.chosen = this.options.key(this.items[n]);
    const top = n * this.height;
    if (top < this.box.scrollTop) this.box.scrollTop = top;
    else if (top + this.height > this.box.scrollTop + this.box.clientHeight) {
      this.box.scrollTop = top + this.height - this.box.clientHeight;
    }
    this.draw();
  }

  click(event) {
    const row = event.target.closest(".row");
    if (!row) return;
    this.chosen = this.options.key(row.item);
    this.draw();
    if (event.target.closest(".caret") && this.options.fold) this.options.fold(row.item, null);
    else this.options.open(row.item);
  }

  press(event) {
    const now = this.items.findIndex((item) => this.options.key(item) === this.chosen);
    const page = Math.max(1, Math.floor(this.box.clientHeight / this.height) - 1);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, j: 1, k: -1 };
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in steps) this.choose(now < 0 ? 0 : now + steps[event.key]);
    else if (event.key === "Home") this.choose(0);
    else if (event.key === "End") this.choose(this.items.length - 1);
    else if (event.key === "Enter" && now >= 0) this.options.open(this.items[now]);
    else if (event.key === "ArrowLeft" && now >= 0 && this.options.fold) this.options.fold(this.items[now], true);
    else if (event.key === "ArrowRight" && now >= 0 && this.options.fold) this.options.fold(this.items[now], false);
    else return;
    event.preventDefault();
  }
}
