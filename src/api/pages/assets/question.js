// Asks before something that cannot be taken back.

import { h, render } from "./dom.js";

/** Resolves to whether the user said yes. Escape and a click beside the dialog say no. */
export function confirm({ title, text, yes }) {
  const dialog = document.getElementById("question");
  return new Promise((resolve) => {
    dialog.returnValue = "";
    const answer = (value) => dialog.close(value);
    render(
      dialog,
      h("h2", { id: "question-title" }, title),
      h("p", { id: "question-text" }, text),
      h(
        "div",
        { class: "actions" },
        h("button", { type: "button", onclick: () => answer("no") }, "Keep"),
        h("button", { type: "button", class: "danger", onclick: () => answer("yes") }, yes),
      ),
    );
    dialog.onpointerdown = ({ target, clientX: x, clientY: y }) => {
      const box = dialog.getBoundingClientRect();
      const isBeside = x < box.left || x > box.right || y < box.top || y > box.bottom;
      if (target === dialog && isBeside) answer("no");
    };
    dialog.onclose = () => resolve(dialog.returnValue === "yes");
    dialog.showModal();
  });
}
