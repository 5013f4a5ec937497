// Molecules that turn under the mouse: shaded balls and sticks on a 2D canvas, the farthest drawn first.
// No library and no network. The eye looks down the z axis from EYE reaches away; lengths are in Angstrom.
(() => {
  const byId = id => document.getElementById(id);
  const {stick, entries} = JSON.parse(byId("molecules3d").textContent);
  const canvas = byId("molecule3d"), pen = canvas.getContext("2d");
  const runs = [...new Set(entries.map(entry => entry.run))];
  const IDENTITY = [[1, 0, 0], [0, 1, 0], [0, 0, 1]], EYE = 5, CLOSEST = 3.3;
  let turn = IDENTITY, zoom = 1;

  // A colour between two, as css: share 0 is the first. Colours are "#rrggbb".
  const mix = (from, to, share) => "rgb(" + [1, 3, 5].map(at => {
    const [a, b] = [from, to].map(colour => parseInt(colour.slice(at, at + 2), 16));
    return Math.round(a + share * (b - a));
  }) + ")";
  const shade = (gradient, colour, veil) => {  // from the lit middle to the dark rim, farther ones paler
    const lit = [[0, "#ffffff", .55], [.35, "#ffffff", .1], [.75, "#000000", .12], [1, "#000000", .38]];
    for (const [at, other, share] of lit) {
      const plain = mix(colour, other, share).match(/\d+/g).map(x => (+x).toString(16).padStart(2, "0"));
      gradient.addColorStop(at, mix("#" + plain.join(""), "#ffffff", veil));
    }
    return gradient;
  };

  const ball = ({x, y, r, colour, veil}) => {
    pen.beginPath();
    pen.arc(x, y, r, 0, 2 * Math.PI);
    const from = [x - .35 * r, y - .4 * r, 0], to = [x - .1 * r, y - .1 * r, 1.1 * r];  // lit from the upper left
    pen.fillStyle = shade(pen.createRadialGradient(...from, ...to), colour, veil);
    pen.fill();
    pen.stroke();
  };
  // A cylinder seen from the side, and the half of its farther end's circle that shows.
  const cylinder = ({near, far, slope, colour, veil}) => {
    const angle = Math.atan2(far.y - near.y, far.x - near.x), [c, s] = [Math.cos(angle), Math.sin(angle)];
    const edge = (end, side) => [end.x - side * s * end.r, end.y + side * c * end.r];
    pen.beginPath();
    pen.moveTo(...edge(near, 1));
    pen.lineTo(...edge(far, 1));
    pen.ellipse(far.x, far.y, slope * far.r, far.r, angle, Math.PI / 2, -Math.PI / 2, true);
    pen.lineTo(...edge(near, -1));
    const up = c >= 0 ? -1 : 1;  // the lit side is the upper one
    const across = pen.createLinearGradient(...edge(near, up * 1.2), ...edge(near, -up));
    pen.fillStyle = shade(across, colour, veil);
    pen.fill();
    pen.stroke();
  };

  const draw = () => {
    const entry = entries[+byId("molecule").value];
    const sharp = window.devicePixelRatio || 1, [width, height] = [canvas.clientWidth, canvas.clientHeight];
    canvas.width = sharp * width;
    canvas.height = sharp * height;
    canvas.setAttribute("aria-label", `${entry.name}; the arrow keys turn it`);
    pen.scale(sharp, sharp);
    pen.translate(width / 2, height / 2);
    pen.lineWidth = 1;
    pen.lineJoin = "round";
    pen.strokeStyle = "rgba(29, 33, 38, .55)";
    const reach = Math.max(CLOSEST, ...entry.points.map((point, n) => Math.hypot(...point) + entry.radii[n]));
    const scale = zoom * .48 * Math.min(width, height) / reach;
    const see = (point, r) => {
      const k = scale * EYE * reach / (EYE * reach - point[2]);
      return {x: k * point[0], y: -k * point[1], z: point[2], r: k * r};
    };
    const points = entry.points.map(point => turn.map(row => row.reduce((sum, a, i) => sum + a * point[i], 0)));
    const veil = z => .3 * (reach - z) / (2 * reach);
    const shapes = points.map((point, n) => {
      const seen = see(point, entry.radii[n]);
      return {...seen, draw: ball, colour: entry.colours[n], veil: veil(seen.z)};
    });
    const {colours, radii} = entry;
    for (const [i, j] of entry.bonds) {
      const along = points[j].map((x, axis) => x - points[i][axis]), length = Math.hypot(...along);
      const at = distance => points[i].map((x, axis) => x + along[axis] * distance / length);
      const [start, end] = [.94 * radii[i], length - .94 * radii[j]], middle = (start + end) / 2;
      if (end <= start) continue;  // the balls hide it
      const halves = [[i, start, middle], [j, middle, end]];
      for (const [n, from, to] of colours[i] === colours[j] ? [[i, start, end]] : halves) {
        const [near, far] = [from, to].map(distance => see(at(distance), stick)).sort((a, b) => b.z - a.z);
        const z = (near.z + far.z) / 2, slope = Math.abs(along[2]) / length;
        shapes.push({draw: cylinder, z, near, far, slope, colour: colours[n], veil: veil(z)});
      }
    }
    shapes.sort((a, b) => a.z - b.z).forEach(shape => shape.draw(shape));
  };

  const rotate = (right, down) => {  // radians, about the screen's axes
    const [a, b, c, d] = [Math.cos(right), Math.sin(right), Math.cos(down), Math.sin(down)];
    const step = [[a, 0, b], [d * b, c, -d * a], [-c * b, d, c * a]];
    turn = step.map(row => IDENTITY.map((_, column) => row.reduce((sum, x, i) => sum + x * turn[i][column], 0)));
    draw();
  };
  const show = () => {
    [turn, zoom] = [IDENTITY, 1];
    draw();
  };
  const option = (text, value) => Object.assign(document.createElement("option"), {textContent: text, value});
  const list = () => {
    const mine = entries.map((entry, i) => [entry, i]).filter(([entry]) => entry.run === runs[+byId("run").value]);
    byId("molecule").replaceChildren(...mine.map(([entry, i]) => option(entry.name, i)));
    show();
  };
  const step = by => {
    const count = byId("molecule").options.length;
    byId("molecule").selectedIndex = (byId("molecule").selectedIndex + by + count) % count;
    show();
  };
  byId("run").append(...runs.map(option));
  byId("run").onchange = list;
  byId("molecule").onchange = show;
  byId("previous").onclick = () => step(-1);
  byId("next").onclick = () => step(1);
  canvas.onpointerdown = event => canvas.setPointerCapture(event.pointerId);
  canvas.onpointermove = event => event.buttons && rotate(event.movementX / 120, event.movementY / 120);
  canvas.onwheel = event => {
    event.preventDefault();
    zoom = Math.min(8, Math.max(.3, zoom * Math.exp(-event.deltaY / 600)));
    draw();
  };
  canvas.onkeydown = event => {
    const turns = {ArrowLeft: [-.1, 0], ArrowRight: [.1, 0], ArrowUp: [0, -.1], ArrowDown: [0, .1]};
    if (!turns[event.key]) return;
    event.preventDefault();
    rotate(...turns[event.key]);
  };
  window.addEventListener("resize", draw);
  list();
})();
