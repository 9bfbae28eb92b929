// Moving and magnifying a drawing: by mouse, touch, wheel and keyboard.

const STEP = 60;
/** A pointer that has moved less has clicked. */
const STILL_PX = 4;
const [SMALLEST, LARGEST] = [0.05, 4];

/**
 * Lets `svg` show `stage` (its only group) moved and magnified. `sizeOf()` tells the drawing's size. Returns what the
 * buttons need; `onChange(scale)` after each change.
 */
export function viewport(svg, stage, sizeOf, onChange) {
  let [x, y, scale] = [0, 0, 1];
  /** Pointers that are down, by id: one moves, two magnify. */
  const down = new Map();
  let begun = null;
  let hasDragged = false;

  function apply() {
    stage.setAttribute("transform", `translate(${x} ${y}) scale(${scale})`);
    svg.dataset.scale = scale.toFixed(3);
    svg.dataset.x = x.toFixed(1);
    svg.dataset.y = y.toFixed(1);
    onChange(scale);
  }

  function zoom(factor, at) {
    const box = svg.getBoundingClientRect();
    const [cx, cy] = at ? [at.clientX - box.left, at.clientY - box.top] : [box.width / 2, box.height / 2];
    const next = Math.min(LARGEST, Math.max(SMALLEST, scale * factor));
    x = cx - ((cx - x) * next) / scale;
    y = cy - ((cy - y) * next) / scale;
    scale = next;
    apply();
  }

  function move(dx, dy) {
    x += dx;
    y += dy;
    apply();
  }

  /** All of it, in the middle, never larger than as drawn. */
  function fit() {
    const { width, height } = sizeOf();
    const box = svg.getBoundingClientRect();
    if (box.width === 0 || width === 0) return;
    scale = Math.max(SMALLEST, Math.min(1, (box.width - 32) / width, (box.height - 32) / height));
    x = (box.width - width * scale) / 2;
    y = (box.height - height * scale) / 2;
    apply();
  }

  function centre(area) {
    const box = svg.getBoundingClientRect();
    scale = Math.max(scale, 0.8);
    x = box.width / 2 - (area.x + area.width / 2) * scale;
    y = box.height / 2 - (area.y + area.height / 2) * scale;
    apply();
  }

  svg.addEventListener("pointerdown", (event) => {
    if (event.pointerType === "mouse" && event.button !== 0) return;
    if (down.size === 0) [begun, hasDragged] = [event, false];
    down.set(event.pointerId, event);
  });
  // the end of a drag is no click on what lies below it
  svg.addEventListener(
    "click",
    (event) => {
      if (hasDragged) event.stopImmediatePropagation();
    },
    { capture: true },
  );
  svg.addEventListener("pointermove", (event) => {
    const last = down.get(event.pointerId);
    if (!last) return;
    if (event.buttons === 0) return void down.delete(event.pointerId); // it was let go elsewhere
    if (!hasDragged) {
      if (down.size === 1 && Math.hypot(event.clientX - begun.clientX, event.clientY - begun.clientY) < STILL_PX)
        return;
      hasDragged = true;
      // from now on, and not before: a captured pointer clicks on nothing but the drawing as a whole
      for (const id of down.keys()) svg.setPointerCapture(id);
      svg.classList.add("grabbed");
    }
    if (down.size === 1) move(event.clientX - last.clientX, event.clientY - last.clientY);
    if (down.size === 2) {
      const other = [...down].find(([id]) => id !== event.pointerId)[1];
      const apart = (one) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
      if (apart(last) > 0) zoom(apart(event) / apart(last), other);
    }
    down.set(event.pointerId, event);
  });
  for (const name of ["pointerup", "pointercancel"]) {
    svg.addEventListener(name, (event) => {
      down.delete(event.pointerId);
      if (down.size === 0) svg.classList.remove("grabbed");
    });
  }
  svg.addEventListener(
    "wheel",
    (event) => {
      // the page scrolls past a drawing that nobody works with
      if (!event.ctrlKey && !event.metaKey && document.activeElement !== svg) return;
      event.preventDefault();
      zoom(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0015)), event);
    },
    { passive: false },
  );
  svg.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const far = event.shiftKey ? 4 * STEP : STEP;
    const keys = {
      ArrowLeft: () => move(far, 0),
      ArrowRight: () => move(-far, 0),
      ArrowUp: () => move(0, far),
      ArrowDown: () => move(0, -far),
      "+": () => zoom(1.25),
      "=": () => zoom(1.25),
      "-": () => zoom(0.8),
      _: () => zoom(0.8),
      0: fit,
      Home: fit,
    };
    const act = keys[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
  return { zoomIn: () => zoom(1.25), zoomOut: () => zoom(0.8), fit, centre };
}
