for (const box of document.querySelectorAll(".slider")) {
  const pictures = box.querySelector(".pictures"), range = box.querySelector("input");
  const cut = (percent) => {
    range.value = percent;
    box.style.setProperty("--cut", range.value + "%");
  };
  const drag = (event) => {
    const place = pictures.getBoundingClientRect();
    cut(100 * (event.clientX - place.left) / place.width);
  };
  range.addEventListener("input", () => cut(range.value));
  pictures.addEventListener("pointerdown", (event) => {
    pictures.setPointerCapture(event.pointerId);
    drag(event);
  });
  pictures.addEventListener("pointermove", (event) => { if (event.buttons) drag(event); });
}
