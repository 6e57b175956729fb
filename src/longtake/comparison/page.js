"use strict";

/* The table: a click on a column sorts by it, best first, and a second one turns it around; dense stays on top. */
for (const head of document.querySelectorAll(".results thead tr:last-child th")) {
  const button = document.createElement("button");
  button.append(...head.childNodes);
  head.append(button);
  button.addEventListener("click", () => {
    const table = head.closest("table"), body = table.tBodies[0], column = head.cellIndex;
    const firstTime = head.dataset.best === "high" ? "descending" : "ascending";
    const turned = firstTime === "ascending" ? "descending" : "ascending";
    const order = head.getAttribute("aria-sort") === firstTime ? turned : firstTime;
    for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", order);
    const key = row => {
      const cell = row.cells[column];
      return cell && cell.dataset.value !== undefined && cell.dataset.value !== "" ? cell.dataset.value : null;
    };
    const rows = [...body.rows].filter(row => !row.classList.contains("dense"));
    rows.sort((one, two) => {
      const a = key(one), b = key(two);
      if (a === null || b === null) return (a === null) - (b === null);
      const way = column === 0 ? a.localeCompare(b) : a - b;
      return order === "ascending" ? way : -way;
    });
    body.append(...rows);
  });
}

/* The clips: one clock; every clip in view shows the frame that the clock says. */
const player = document.querySelector(".player");
if (player) {
  const clips = [...document.querySelectorAll("video")];
  const fps = Number(player.dataset.fps), frames = Number(player.dataset.frames), length = frames / fps;
  const [button, scrub, speed, shown] = ["button", "input", "select", "output"].map(name => player.querySelector(name));
  const seen = new Set();
  let time = 0, last = null, playing = false;

  const place = clip => { clip.currentTime = Math.min(time, length - 0.5 / fps); };
  const show = () => {
    const frame = Math.min(frames - 1, Math.floor(time * fps + 1e-6));
    shown.textContent = "frame " + (frame + 1) + " of " + frames;
    scrub.value = frame;
  };
  const play = clip => { clip.playbackRate = Number(speed.value); place(clip); clip.play().catch(() => {}); };
  const set = on => {
    playing = on;
    last = null;
    button.textContent = on ? "Pause" : "Play";
    for (const clip of seen) if (on) play(clip); else { clip.pause(); place(clip); }
  };
  const tick = now => {
    if (playing && last !== null) {
      time += (now - last) / 1000 * Number(speed.value);
      if (time >= length) {
        time %= length;
        seen.forEach(play);
      }
      for (const clip of seen) if (!clip.ended && Math.abs(clip.currentTime - time) > 1 / fps) place(clip);
      show();
    }
    last = now;
    requestAnimationFrame(tick);
  };

  for (const clip of clips) { clip.controls = false; clip.loop = false; }
  const watch = new IntersectionObserver(changes => {
    for (const { target, isIntersecting } of changes) {
      if (isIntersecting) { seen.add(target); if (playing) play(target); else place(target); }
      else { seen.delete(target); target.pause(); }
    }
  });
  clips.forEach(clip => watch.observe(clip));
  button.addEventListener("click", () => set(!playing));
  scrub.addEventListener("input", () => { set(false); time = (Number(scrub.value) + 0.5) / fps; seen.forEach(place); show(); });
  speed.addEventListener("change", () => set(playing));
  document.documentElement.classList.add("scripted");
  show();
  requestAnimationFrame(tick);
  set(!matchMedia("(prefers-reduced-motion: reduce)").matches);
}
