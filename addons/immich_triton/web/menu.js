// In Immich's web app: "Refresh OCR" and "Refresh CLIP", in the menu of a photo and in that of a selection.
//
// The app itself says for which photos: our item clicks the app's own next to it ("Refresh faces" of a photo, "Refresh
// metadata" of a selection), and the app's request is taken and sent as ours. So the menu closes and the selection ends
// as ever, of a selection the photos that are scrolled out of the page count too, and whoever may not sees no items.
// Where the app is built otherwise than in Immich 2.7 and 3.1 nothing is added.
"use strict";
(() => {
  const JOBS = "/api/assets/jobs";
  const STATE = "/api/immich-triton/reprocess/";
  const TASKS = { "refresh-ocr": "OCR", "refresh-clip": "CLIP" };
  const MOST_PHOTOS = 1000; // in one order
  const APP_SECONDS = 5; // in which the app answers a click
  const PATIENCE_SECONDS = 900; // without any progress
  const SHORTEST_PAUSE = 0.5;
  const LONGEST_PAUSE = 10;

  // Items are known by their icons (Material Design Icons), which are the same in every language.
  const FACES = "M13 3C16.88 3 20 6.14";
  const METADATA = "M6 12.45V9.64C7.47";
  const OUR_ICONS = {
    "refresh-ocr": "M3 3h6v2H5v4H3zM15 3h6v6h-2V5h-4zM3 15h2v4h4v2H3zM19 15h2v6h-6v-2h4zM8 8h8v2h-3v7h-2v-7H8z",
    "refresh-clip":
      "M10 2A8 8 0 0 1 16.3 14.9L22 20.6 20.6 22 14.9 16.3A8 8 0 1 1 10 2M10 4A6 6 0 1 0 10 16 6 6 0 1 0 10 4M6 12l2.5-3 1.5 2 2-3 3 4z",
  };
  const ACTIVE = "bg-slate-300"; // as the app shows the item that is pointed at
  const IDLE = "bg-slate-100";

  // The item; what became of an order.
  const WORDS = {
    en: ["Refresh {}", "queued", "done", "failed", "still in the queue"],
    "zh-Hans": ["刷新 {}", "已加入队列", "已完成", "失败", "仍在队列中"],
    "zh-Hant": ["重新整理 {}", "已加入佇列", "已完成", "失敗", "仍在佇列中"],
    ja: ["{} を更新", "キューに追加しました", "完了しました", "失敗しました", "まだキューにあります"],
    ko: ["{} 새로고침", "대기열에 추가됨", "완료됨", "실패함", "아직 대기열에 있음"],
    de: ["{} aktualisieren", "eingereiht", "fertig", "fehlgeschlagen", "noch in der Warteschlange"],
    fr: ["Actualiser {}", "en file d’attente", "terminé", "échec", "toujours en file d’attente"],
    es: ["Actualizar {}", "en cola", "terminado", "fallido", "todavía en cola"],
    th: ["รีเฟรช {}", "เข้าคิวแล้ว", "เสร็จแล้ว", "ล้มเหลว", "ยังอยู่ในคิว"],
  };
  const [ITEM, QUEUED, DONE, FAILED, WAITING] = WORDS.en.keys();

  // Why, as far as it is known by a word; what Immich itself says stays as it is.
  const REASONS = {
    en: {
      no_text: "no text before and none now",
      no_result: "ended without a result: is the machine learning up and on?",
      unseen: "the result cannot be seen from here",
      gone: "taken out of the queue",
      not_named: "the app has not named the photos",
      restarted: "the result is not known after a restart",
    },
    "zh-Hans": {
      no_text: "之前和现在都没有文字",
      no_result: "任务结束但没有结果：机器学习服务是否已启动并启用？",
      unseen: "无法得知结果",
      gone: "任务已被移出队列",
      not_named: "应用没有给出照片",
      restarted: "服务重启后无法得知结果",
    },
    "zh-Hant": {
      no_text: "之前和現在都沒有文字",
      no_result: "工作結束但沒有結果：機器學習服務是否已啟動並啟用？",
      unseen: "無法得知結果",
      gone: "工作已被移出佇列",
      not_named: "應用程式沒有給出照片",
      restarted: "服務重新啟動後無法得知結果",
    },
    ja: {
      no_text: "前も今も文字がありません",
      no_result: "結果なしで終了しました。機械学習は動作していて有効ですか？",
      unseen: "結果を確認できません",
      gone: "キューから取り除かれました",
      not_named: "アプリが写真を示しませんでした",
      restarted: "再起動のため結果がわかりません",
    },
    ko: {
      no_text: "이전에도 지금도 텍스트 없음",
      no_result: "결과 없이 종료됨: 머신 러닝이 실행 중이고 켜져 있나요?",
      unseen: "결과를 확인할 수 없음",
      gone: "대기열에서 제거됨",
      not_named: "앱이 사진을 알려 주지 않음",
      restarted: "재시작되어 결과를 알 수 없음",
    },
    de: {
      no_text: "vorher kein Text und jetzt keiner",
      no_result: "ohne Ergebnis beendet: Läuft das maschinelle Lernen, und ist es eingeschaltet?",
      unseen: "das Ergebnis ist von hier nicht zu sehen",
      gone: "aus der Warteschlange genommen",
      not_named: "die App hat die Fotos nicht genannt",
      restarted: "das Ergebnis ist nach einem Neustart nicht bekannt",
    },
    fr: {
      no_text: "pas de texte avant, ni maintenant",
      no_result: "terminé sans résultat : l’apprentissage automatique est-il démarré et activé ?",
      unseen: "le résultat n’est pas visible d’ici",
      gone: "retiré de la file d’attente",
      not_named: "l’application n’a pas indiqué les photos",
      restarted: "le résultat n’est pas connu après un redémarrage",
    },
    es: {
      no_text: "sin texto antes y ahora",
      no_result: "terminó sin resultado: ¿está en marcha y activado el aprendizaje automático?",
      unseen: "el resultado no se ve desde aquí",
      gone: "retirado de la cola",
      not_named: "la aplicación no indicó las fotos",
      restarted: "el resultado no se conoce tras un reinicio",
    },
    th: {
      no_text: "ไม่มีข้อความทั้งก่อนและตอนนี้",
      no_result: "สิ้นสุดโดยไม่มีผลลัพธ์: ระบบแมชชีนเลิร์นนิงทำงานและเปิดอยู่หรือไม่",
      unseen: "ไม่เห็นผลลัพธ์จากที่นี่",
      gone: "ถูกนำออกจากคิว",
      not_named: "แอปไม่ได้ระบุรูปภาพ",
      restarted: "ไม่ทราบผลลัพธ์หลังเริ่มใหม่",
    },
  };

  /** Return the words in the language of the app. */
  function words() {
    return WORDS[language()];
  }

  /** Return *reason* in the language of the app, or else the *message*. */
  function why(reason, message) {
    return REASONS[language()][reason] ?? message;
  }

  /** Return which of our languages the app speaks: 2.7 keeps it as zh_Hans, 3.1 as zh-Hans, browsers say zh-CN. */
  function language() {
    let code = navigator.language;
    try {
      code = localStorage.getItem("lang") || code;
    } catch {
      // no storage: the language of the browser, as the app has it
    }
    const [first, ...rest] = code.replaceAll('"', "").toLowerCase().split(/[-_]/);
    if (first === "zh") {
      return rest.some((part) => ["hant", "tw", "hk", "mo"].includes(part)) ? "zh-Hant" : "zh-Hans";
    }
    return Object.hasOwn(WORDS, first) ? first : "en";
  }

  // The request of the app

  const send = window.fetch;
  let passed = false; // whether requests of the app come by here; without that no items are shown
  let awaited = null; // the order whose photos the app is about to name

  window.fetch = function (input, init) {
    let order = null;
    try {
      const path = new URL(input?.url ?? input, location.href).pathname;
      if (path.startsWith("/api/") && !passed) {
        passed = true;
        look();
      }
      order = path === JOBS ? awaited : null;
    } catch {
      // whatever it is, it is none of ours
    }
    if (!order) {
      return send.apply(this, arguments);
    }
    awaited = null;
    clearTimeout(order.timer);
    void run(order.task, input, init);
    // An abort is what the app takes without a word; then it ends the selection.
    return Promise.reject(new DOMException("taken by immich-triton", "AbortError"));
  };

  /** Have the app say for which photos *task* is: by a click on its own *item*. */
  function start(task, item) {
    if (awaited) {
      return;
    }
    const timer = setTimeout(() => {
      awaited = null;
      toast(task, FAILED, why("not_named"));
    }, APP_SECONDS * 1000);
    awaited = { task, timer };
    item.click();
  }

  /** Order *task* for the photos in the app's request, and say what becomes of it. */
  async function run(task, input, init) {
    try {
      const photos = JSON.parse(init.body).assetIds;
      for (let at = 0; at < photos.length; at += MOST_PHOTOS) {
        const body = JSON.stringify({ assetIds: photos.slice(at, at + MOST_PHOTOS), name: task });
        const answer = await send.call(window, input, { ...init, body });
        if (!answer.ok) {
          throw new Error(await messageOf(answer));
        }
      }
      toast(task, QUEUED, count(photos.length));
      await watch(task, photos);
    } catch (error) {
      toast(task, FAILED, error.message);
    }
  }

  async function messageOf(answer) {
    const body = await answer.json().catch(() => ({}));
    return [body.message ?? answer.statusText].flat().join(", ");
  }

  // What becomes of an order

  /** Ask for one photo after the other: all have to end, so that one question at a time is enough. */
  async function watch(task, photos) {
    const all = photos.length;
    const failed = [];
    const notes = new Set();
    for (const photo of photos) {
      const { state, message } = await end(task, photo);
      if (state === "waiting") {
        toast(task, WAITING, message);
        return;
      }
      if (state === "failed") {
        failed.push(photo);
      }
      if (message) {
        notes.add(message);
      }
    }
    const note = [...notes].join("; ");
    if (failed.length) {
      toast(task, FAILED, all > 1 ? `${failed.length}/${all}` : "", note);
    }
    if (failed.length < all) {
      toast(task, DONE, count(all - failed.length), failed.length ? "" : note);
    }
  }

  /** Return how *task* ended for a photo: its state and message; waiting when it takes too long. */
  async function end(task, photo) {
    const deadline = performance.now() + PATIENCE_SECONDS * 1000;
    let seconds = SHORTEST_PAUSE;
    let trouble = "";
    while (performance.now() < deadline) {
      try {
        const answer = await send.call(window, STATE + photo);
        if (answer.ok) {
          const result = (await answer.json()).tasks[task];
          if (!result) {
            return { state: "done", message: why("restarted") };
          }
          if (result.state === "done" || result.state === "failed") {
            return { state: result.state, message: why(result.reason, result.message) };
          }
        } else if (answer.status < 500) {
          return { state: "failed", message: await messageOf(answer) };
        }
        trouble = "";
      } catch (error) {
        trouble = error.message; // the connection may come back
      }
      await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
      seconds = Math.min(seconds * 1.5, LONGEST_PAUSE);
    }
    return { state: "waiting", message: trouble };
  }

  function count(photos) {
    return photos > 1 ? String(photos) : "";
  }

  // What one sees

  const apps = new WeakMap(); // by menu, the app's item that ours go by

  /** Put our items into the menus that have the app's. */
  function look() {
    scheduled = false;
    if (!passed) {
      return;
    }
    for (const menu of document.querySelectorAll("ul[role=menu]")) {
      const faces = itemOf(menu, FACES);
      const item = faces ?? itemOf(menu, METADATA); // the menu of a selection has no faces
      const before = faces ?? menu.querySelector(":scope > hr");
      const ours = menu.querySelectorAll(":scope > [data-immich-triton]");
      if (ours.length && item === apps.get(menu)) {
        continue;
      }
      ours.forEach((one) => one.remove());
      if (item && before) {
        apps.set(menu, item);
        add(menu, item, before);
      }
    }
  }

  function itemOf(menu, icon) {
    return [...menu.children].find(
      (item) => item.matches("li[role=menuitem]") && item.querySelector("path")?.getAttribute("d")?.startsWith(icon),
    );
  }

  /** Add our items to *menu* behind *before*; *item* is the app's one that knows the photos, and how an item looks. */
  function add(menu, item, before) {
    if (!textOf(item)) {
      return;
    }
    const added = Object.keys(TASKS).map((task) => {
      const ours = item.cloneNode(true);
      textOf(ours).data = words()[ITEM].replace("{}", TASKS[task]);
      ours.id = `${menu.id || "menu"}-immich-triton-${task}`; // by which the app's arrow keys find it
      ours.dataset.immichTriton = task;
      ours.querySelector("path").setAttribute("d", OUR_ICONS[task]);
      ours.addEventListener("click", () => start(task, item));
      ours.addEventListener("mouseenter", () => show(ours, true));
      ours.addEventListener("mouseleave", () => show(ours, false));
      show(ours, false);
      return ours;
    });
    before.after(...added);
    // The app colours the item that the arrow keys are at, but knows only its own.
    new MutationObserver(() => {
      const active = menu.getAttribute("aria-activedescendant");
      added.forEach((ours) => show(ours, ours.id === active));
    }).observe(menu, { attributeFilter: ["aria-activedescendant"] });
  }

  function textOf(item) {
    const walker = document.createTreeWalker(item, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      if (walker.currentNode.data.trim()) {
        return walker.currentNode;
      }
    }
    return null;
  }

  function show(item, active) {
    item.classList.toggle(ACTIVE, active);
    item.classList.toggle(IDLE, !active);
  }

  /** Say what became of *task*: the word for it and, in brackets, *details*. */
  function toast(task, word, ...details) {
    const known = details.filter(Boolean);
    const box = document.createElement("div");
    box.textContent = `${TASKS[task]}: ${words()[word]}${known.length ? ` (${known.join("; ")})` : ""}`;
    box.dataset.state = WORDS.en[word];
    // Set one by one: a CSP may forbid style sheets and attributes.
    Object.assign(box.style, {
      background: word === FAILED ? "#b91c1c" : word === DONE ? "#15803d" : "#334155",
      borderRadius: "0.5rem",
      color: "white",
      cursor: "pointer",
      maxWidth: "24rem",
      padding: "0.75rem 1rem",
    });
    box.addEventListener("click", () => box.remove());
    toasts().append(box);
    setTimeout(() => box.remove(), word === FAILED ? 20000 : 6000);
  }

  function toasts() {
    const there = document.getElementById("immich-triton-toasts");
    if (there) {
      return there;
    }
    const made = document.createElement("div");
    made.id = "immich-triton-toasts";
    made.setAttribute("role", "status"); // read out by screen readers
    Object.assign(made.style, {
      bottom: "1rem",
      display: "flex",
      flexDirection: "column",
      fontSize: "0.875rem",
      gap: "0.5rem",
      insetInlineEnd: "1rem",
      position: "fixed",
      zIndex: "1000",
    });
    document.body.append(made);
    return made;
  }

  let scheduled = false;
  new MutationObserver(() => {
    if (!scheduled) {
      scheduled = true;
      requestAnimationFrame(look); // once for all that the app changes at a time
    }
  }).observe(document.body, { childList: true, subtree: true });
})();
