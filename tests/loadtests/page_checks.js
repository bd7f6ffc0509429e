// Looks at a laid-out page and writes what is wrong with it, as JSON, into an element "problems".
(() => {
  const problems = [];
  const name = (element) => {
    const title = element.closest("figure")?.querySelector("figcaption b")?.textContent;
    return `${title ? `${title}: ` : ""}<${element.tagName.toLowerCase()} class="${element.getAttribute("class") || ""}"> ` +
      `"${element.textContent.trim().slice(0, 40)}"`;
  };
  const overlap = (a, b) =>
    Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 &&
    Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1;

  // Nothing is wider than the page, or than its card.
  if (document.documentElement.scrollWidth > innerWidth + 1) {
    problems.push(`the page is ${document.documentElement.scrollWidth} wide, the window ${innerWidth}`);
  }
  // What may be scrolled on a phone must fit on a desk.
  const fixed = innerWidth > 900 ? ".card" : ".card:not(.scroll)";
  for (const card of document.querySelectorAll(`${fixed}, .tile, .verdict, header`)) {
    if (card.scrollWidth > card.clientWidth + 1) problems.push(`overflows: ${name(card)}`);
  }
  // No card lies on another.
  const cards = [...document.querySelectorAll(".card, .tile, .verdict, h2")].filter((card) => card.offsetParent);
  const boxes = cards.map((card) => card.getBoundingClientRect());
  cards.forEach((card, i) => {
    if (boxes[i].width < 20 || boxes[i].height < 10) problems.push(`collapsed: ${name(card)}`);
    for (let j = i + 1; j < cards.length; j++) {
      if (overlap(boxes[i], boxes[j])) problems.push(`${name(card)} overlaps ${name(cards[j])}`);
    }
  });
  // In a chart every text is inside, and none on another.
  for (const svg of document.querySelectorAll("svg")) {
    const frame = svg.getBoundingClientRect();
    if (frame.width < 100 || frame.height < 50) problems.push(`small: ${name(svg)}`);
    const texts = [...svg.querySelectorAll("text")];
    const places = texts.map((text) => text.getBoundingClientRect());
    texts.forEach((text, i) => {
      const box = places[i];
      if (box.left < frame.left - 1 || box.right > frame.right + 1 || box.top < frame.top - 1 || box.bottom > frame.bottom + 1) {
        problems.push(`outside its chart: ${name(text)}`);
      }
      for (let j = i + 1; j < texts.length; j++) {
        if (overlap(box, places[j])) problems.push(`${name(text)} is on ${name(texts[j])}`);
      }
    });
  }
  // Every text can be read: a contrast of 4.5 (WCAG 2.2, 1.4.3).
  const channels = (colour) => (colour.match(/[\d.]+/g) || []).map(Number);
  const light = (colour) => {
    const [r, g, b] = channels(colour).slice(0, 3).map((value) => {
      const share = value / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      const parts = channels(colour);
      if (parts.length === 3 || parts[3] > 0) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  let seen = 0;
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
    if (!own || !element.getClientRects().length || element.closest("script, style")) continue;
    seen++;
    const style = getComputedStyle(element);
    const pair = [light(element.closest("svg") ? style.fill : style.color), light(ground(element))].sort((a, b) => b - a);
    const contrast = (pair[0] + 0.05) / (pair[1] + 0.05);
    if (contrast < 4.5) problems.push(`contrast ${contrast.toFixed(1)}: ${name(element)}`);
  }
  // What the page's own script adds.
  const bar = document.querySelector("svg .tip");
  bar.dispatchEvent(new PointerEvent("pointermove", { bubbles: true, clientX: 300, clientY: 300 }));
  const tooltip = document.querySelector(".tooltip");
  if (tooltip.hidden || !tooltip.textContent) problems.push("no tooltip");
  const before = getComputedStyle(document.body).backgroundColor;
  document.getElementById("theme").click();
  const after = getComputedStyle(document.body).backgroundColor;
  if (before === after) problems.push("the switch changes nothing");

  const result = document.createElement("pre");
  result.id = "problems";
  result.textContent = JSON.stringify({ problems, seen, before, after, charts: document.querySelectorAll("svg").length });
  document.body.append(result);
})();
