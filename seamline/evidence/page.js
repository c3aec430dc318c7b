"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("data").textContent);
  const clamp = (v, low, high) => Math.min(Math.max(v, low), high);
  document.documentElement.classList.add("js");
  document.querySelectorAll("[data-js], .tools, #viewhint").forEach((e) => { e.hidden = false; });

  // Closed parts are printed too.
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    closed.forEach((e) => { e.open = true; });
  });
  addEventListener("afterprint", () => closed.forEach((e) => { e.open = false; }));

  const viewer = $("viewer");
  if (viewer) photo();
  const timeline = $("timeline");
  if (timeline) clip();

  function photo() {
    const figures = [...viewer.querySelectorAll("figure")];
    const images = figures.map((f) => f.querySelector("img"));
    const fit = () => { viewer.style.maxWidth = `calc(80vh * ${images[0].naturalWidth / images[0].naturalHeight || 1})`; };
    if (images[0].complete) fit(); else images[0].addEventListener("load", fit);
    if (figures.length < 2) return;
    const divider = viewer.querySelector(".divider"), slide = $("slide");
    let zoom = 1, x = 0, y = 0, shown = figures[1];
    divider.hidden = false;

    function draw() {
      const w = viewer.clientWidth, h = viewer.clientHeight;
      x = clamp(x, w * (1 - zoom), 0);
      y = clamp(y, h * (1 - zoom), 0);
      for (const image of images) image.style.transform = `translate(${x}px, ${y}px) scale(${zoom})`;
      for (const figure of figures.slice(1)) figure.classList.toggle("on", figure === shown);
      shown.style.clipPath = `inset(0 0 0 ${slide.value}%)`;
      divider.style.left = `${slide.value}%`;
      viewer.classList.toggle("near", zoom > 1);
      $("scale").textContent = `${Math.round(zoom * 10) / 10}×`;
    }
    function zoomTo(next, cx = viewer.clientWidth / 2, cy = viewer.clientHeight / 2) {
      next = clamp(next, 1, 16);
      x = cx - (cx - x) * next / zoom;
      y = cy - (cy - y) * next / zoom;
      zoom = next;
      draw();
    }
    function compare(clientX) {
      const box = viewer.getBoundingClientRect();
      slide.value = clamp(100 * (clientX - box.left) / box.width, 0, 100);
      draw();
    }
    slide.addEventListener("input", draw);
    document.querySelectorAll("input[name=layer]").forEach((radio) => radio.addEventListener("change", () => {
      shown = figures.find((f) => f.dataset.layer === radio.value);
      $("other").textContent = radio.parentElement.textContent.trim();
      draw();
    }));
    $("in").addEventListener("click", () => zoomTo(zoom * 1.5));
    $("out").addEventListener("click", () => zoomTo(zoom / 1.5));
    $("reset").addEventListener("click", () => zoomTo(1));
    document.querySelectorAll("[data-box]").forEach((button) => button.addEventListener("click", () => {
      const [x0, y0, x1, y1] = button.dataset.box.split(",").map(Number), [width, height] = data.size;
      const w = viewer.clientWidth, h = viewer.clientHeight;
      zoom = clamp(0.6 * Math.min(width / (x1 - x0), height / (y1 - y0)), 1, 16);
      x = w / 2 - (x0 + x1) / 2 / width * w * zoom;
      y = h / 2 - (y0 + y1) / 2 / height * h * zoom;
      draw();
      slide.value = 100 * (x + (x0 + x1) / 2 / width * w * zoom) / w; // through the middle of the area
      draw();
      viewer.scrollIntoView({ block: "nearest" });
    }));
    viewer.addEventListener("wheel", (e) => {
      if (!e.ctrlKey && !e.metaKey && document.activeElement !== viewer) return; // else it scrolls the page
      e.preventDefault();
      const box = viewer.getBoundingClientRect();
      zoomTo(zoom * Math.exp(-clamp(e.deltaY, -100, 100) / 250), e.clientX - box.left, e.clientY - box.top);
    }, { passive: false });
    viewer.addEventListener("keydown", (e) => {
      const step = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[e.key];
      if (e.key === "+" || e.key === "=") zoomTo(zoom * 1.5);
      else if (e.key === "-") zoomTo(zoom / 1.5);
      else if (e.key === "0") zoomTo(1);
      else if (step && zoom > 1) { x += 60 * step[0]; y += 60 * step[1]; draw(); }
      else if (step && step[0]) { slide.value = Number(slide.value) - 5 * step[0]; draw(); }
      else return;
      e.preventDefault();
    });
    // One finger or the mouse compares, or moves a photo that is zoomed into; two fingers zoom.
    const fingers = new Map();
    let comparing = false;
    viewer.addEventListener("pointerdown", (e) => {
      fingers.set(e.pointerId, e);
      viewer.setPointerCapture(e.pointerId);
      const box = viewer.getBoundingClientRect();
      comparing = zoom === 1 || Math.abs(e.clientX - box.left - box.width * slide.value / 100) < 24;
      if (comparing && fingers.size === 1) compare(e.clientX);
    });
    viewer.addEventListener("pointermove", (e) => {
      const before = fingers.get(e.pointerId);
      if (!before) return;
      if (fingers.size === 2) {
        const other = [...fingers.values()].find((f) => f.pointerId !== e.pointerId);
        const gap = (f) => Math.hypot(f.clientX - other.clientX, f.clientY - other.clientY) || 1;
        const box = viewer.getBoundingClientRect();
        zoomTo(zoom * gap(e) / gap(before), (e.clientX + other.clientX) / 2 - box.left, (e.clientY + other.clientY) / 2 - box.top);
      } else if (comparing) compare(e.clientX);
      else { x += e.clientX - before.clientX; y += e.clientY - before.clientY; draw(); }
      fingers.set(e.pointerId, e);
    });
    for (const end of ["pointerup", "pointercancel"]) viewer.addEventListener(end, (e) => fingers.delete(e.pointerId));
    addEventListener("resize", draw);
    draw();
  }

  function clip() {
    const still = $("still"), boxes = $("boxes"), head = timeline.querySelector(".playhead"), how = $("how");
    let player = $("player"), time = 0;
    head.hidden = false;

    const words = (t) => {
      const s = (t % 60).toFixed(2).padStart(data.duration < 60 ? 4 : 5, "0");
      return data.duration < 60 ? `${s} s` : `${Math.floor(t / 60)}:${s}`;
    };
    function draw() {
      if (player) time = player.currentTime;
      head.style.left = `${100 * clamp(time / data.duration, 0, 1)}%`;
      timeline.setAttribute("aria-valuenow", time.toFixed(2));
      timeline.setAttribute("aria-valuetext", words(time));
      if (!player && still && data.frames.length) {
        const near = data.frames.reduce((a, b, i) => Math.abs(b - time) < Math.abs(data.frames[a] - time) ? i : a, 0);
        const picture = document.querySelectorAll(".frames img")[near];
        if (still.src !== picture.src) still.src = picture.src;
        still.alt = picture.alt;
      }
      if (boxes) faces();
    }
    // A face stands where it was listed last, until its span ends.
    function faces() {
      boxes.replaceChildren();
      for (const face of data.faces) {
        if (!face.spans.some(([start, end]) => start <= time && time < end)) continue;
        const before = face.boxes.filter((box) => box[0] <= time + 0.001).pop();
        if (!before) continue;
        const rect = document.createElementNS("http://www.w3.org/2000/svg", "rect");
        const [, x0, y0, x1, y1] = before;
        for (const [name, value] of Object.entries({ x: x0, y: y0, width: x1 - x0, height: y1 - y0 })) rect.setAttribute(name, value);
        boxes.append(rect);
      }
    }
    function seek(t) {
      time = clamp(t, 0, data.duration);
      if (player) player.currentTime = time;
      draw();
    }
    function without() {
      if (player) { player.remove(); how.textContent = data.unplayable; }
      player = null;
      if (still) still.hidden = false;
      draw();
    }
    if (player) {
      for (const name of ["timeupdate", "seeked", "seeking", "loadedmetadata"]) player.addEventListener(name, draw);
      player.addEventListener("error", without);
      const run = () => { draw(); if (player && !player.paused && !player.ended) requestAnimationFrame(run); };
      player.addEventListener("play", run);
      if (player.error) without();
    } else without();

    document.querySelectorAll("[data-time]").forEach((button) => button.addEventListener("click", () => seek(Number(button.dataset.time))));
    const point = (e) => {
      const box = timeline.getBoundingClientRect();
      seek(data.duration * (e.clientX - box.left) / box.width);
    };
    timeline.addEventListener("pointerdown", (e) => { if (e.button === 0) { timeline.setPointerCapture(e.pointerId); point(e); } });
    timeline.addEventListener("pointermove", (e) => { if (timeline.hasPointerCapture(e.pointerId)) point(e); });
    timeline.addEventListener("keydown", (e) => {
      const to = {
        ArrowRight: time + data.tick, ArrowUp: time + data.tick, ArrowLeft: time - data.tick, ArrowDown: time - data.tick,
        PageUp: time + data.duration / 10, PageDown: time - data.duration / 10, Home: 0, End: data.duration,
      }[e.key];
      if (to === undefined) {
        if (e.key === " " && player) { if (player.paused) player.play(); else player.pause(); e.preventDefault(); }
        return;
      }
      e.preventDefault();
      seek(to);
    });
    draw();
  }
})();
