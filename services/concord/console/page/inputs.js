// What a task takes: its picture's size and the range of its values, and how a drawing or an upload becomes that.

/** width, height, channels; `most` is white; `fit`: the drawing is cut out and fills the picture, as in the data set. */
const TASKS = {
  digits: { width: 8, height: 8, channels: 1, most: 1, fit: true, inverted: true },
  "fashion-mnist": { width: 28, height: 28, channels: 1, most: 255, fit: true, inverted: true },
  cifar10: { width: 32, height: 32, channels: 3, most: 255 },
  "chest-xray": { width: 64, height: 64, channels: 1, most: 255 },
};

/** The kind of picture a task takes, by its name or by the shape of its input; null if it is none. */
export function pictureOf(task, shape) {
  const size = shape.reduce((product, side) => product * side, 1);
  const known = TASKS[task];
  if (known && known.width * known.height * known.channels === size) return known;
  if (shape.length === 3 && (shape[0] === 1 || shape[0] === 3) && shape[1] > 3) {
    return { width: shape[2], height: shape[1], channels: shape[0], most: 1 };
  }
  const [height, width] = shape.length === 2 ? shape : [Math.sqrt(size), Math.sqrt(size)];
  return Number.isInteger(height) && height >= 6 && width >= 6 && shape.length <= 2 ? { width, height, channels: 1, most: 1 } : null;
}

/** The values of a canvas (light on dark) for a picture: flat, channel by channel, row by row. */
export function sample(canvas, picture) {
  const source = picture.fit ? cut(canvas, picture) : canvas;
  const small = shrink(source, picture.width, picture.height);
  const pixels = small.getContext("2d").getImageData(0, 0, picture.width, picture.height).data;
  const values = [];
  for (let channel = 0; channel < picture.channels; channel++) {
    for (let i = 0; i < pixels.length; i += 4) {
      const level = picture.channels === 1 ? 0.299 * pixels[i] + 0.587 * pixels[i + 1] + 0.114 * pixels[i + 2] : pixels[i + channel];
      values.push(picture.most === 1 ? Number((level / 255).toFixed(4)) : Math.round((level / 255) * picture.most));
    }
  }
  return { values, small };
}

/** What is drawn, in the middle of a square that it fills; the whole canvas if nothing is. */
function cut(canvas) {
  const { width, height } = canvas, pixels = canvas.getContext("2d").getImageData(0, 0, width, height).data;
  let left = width, right = -1, top = height, bottom = -1;
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (pixels[4 * (y * width + x)] < 64) continue;
      left = Math.min(left, x); right = Math.max(right, x); top = Math.min(top, y); bottom = Math.max(bottom, y);
    }
  }
  if (right < 0) return canvas;
  const side = Math.max(right - left, bottom - top) + 1;
  const made = blank(side, side), paint = made.getContext("2d");
  paint.drawImage(canvas, left, top, right - left + 1, bottom - top + 1, (side - (right - left + 1)) / 2, (side - (bottom - top + 1)) / 2, right - left + 1, bottom - top + 1);
  return made;
}

/** Each pixel the mean of those it stands for: browsers' own scaling skips some when it shrinks much. */
function shrink(canvas, width, height) {
  const from = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const made = blank(width, height), paint = made.getContext("2d"), to = paint.createImageData(width, height);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const sums = [0, 0, 0];
      const [x0, x1] = [Math.floor((x * from.width) / width), Math.max(Math.floor(((x + 1) * from.width) / width), Math.floor((x * from.width) / width) + 1)];
      const [y0, y1] = [Math.floor((y * from.height) / height), Math.max(Math.floor(((y + 1) * from.height) / height), Math.floor((y * from.height) / height) + 1)];
      for (let v = y0; v < y1; v++) for (let u = x0; u < x1; u++) for (let c = 0; c < 3; c++) sums[c] += from.data[4 * (v * from.width + u) + c];
      const area = (x1 - x0) * (y1 - y0);
      to.data.set([...sums.map((sum) => Math.round(sum / area)), 255], 4 * (y * width + x));
    }
  }
  paint.putImageData(to, 0, 0);
  return made;
}

export function blank(width, height) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const paint = canvas.getContext("2d", { willReadFrequently: true });
  paint.fillStyle = "#000";
  paint.fillRect(0, 0, width, height);
  return canvas;
}

/** Lays an image into a canvas, whole and in the middle; light paper becomes dark where the task wants light ink. */
export function lay(canvas, image, picture) {
  const paint = canvas.getContext("2d"), { width, height } = canvas;
  const scale = Math.min(width / image.width, height / image.height);
  paint.fillStyle = "#000";
  paint.fillRect(0, 0, width, height);
  paint.drawImage(image, (width - image.width * scale) / 2, (height - image.height * scale) / 2, image.width * scale, image.height * scale);
  if (!picture.inverted) return;
  const data = paint.getImageData(0, 0, width, height);
  let border = 0;
  for (let x = 0; x < width; x++) border += data.data[4 * (Math.floor((height - image.height * scale) / 2 + 1) * width + x)];
  if (border / width < 128) return;
  for (let i = 0; i < data.data.length; i += 4) for (let c = 0; c < 3; c++) data.data[i + c] = 255 - data.data[i + c];
  paint.putImageData(data, 0, 0);
}
