// Code, tables, formulas and pictures that are wider than the page scroll; with a place in the tab
// order they also scroll by the arrow keys. Those that fit get none: a stop that does nothing.
function reach() {
  for (const box of document.querySelectorAll("pre, .table-wrapper, div.math, .wide")) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }
}

addEventListener("load", reach);
addEventListener("resize", reach);
