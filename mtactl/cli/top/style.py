"""How the live screen is laid out. Its colours are the terminal's own."""

from __future__ import annotations

__all__ = ["SHEET"]

SHEET = """
Screen { layout: vertical; background: ansi_default; color: ansi_default; overflow: hidden hidden; }
Overview { height: auto; }
Overview Static, #views, #strip, #keys { text-wrap: nowrap; text-overflow: clip; }
Overview Static { height: auto; max-height: 12; }
#views { height: 1; }
#body { height: 1fr; min-height: 2; }
#campaigns, #lanes, #log, #halts-view { height: 100%; background: ansi_default; }
#log { scrollbar-size-vertical: 1; overflow-x: hidden; }
#strip { height: auto; max-height: 14; border-top: solid ansi_bright_black; }
#message { height: auto; max-height: 4; }
#keys { height: 1; }
#filter { height: 1; }
Input { background: ansi_default; color: ansi_default; }
ModalScreen { align: center middle; background: ansi_default 0%; }
.dialog {
    width: 76; max-width: 100%; height: auto; max-height: 100%;
    border: round ansi_yellow; padding: 0 1; background: ansi_default;
}
.danger { border: round ansi_red; }
.field { height: 1; }
.field .label { width: auto; }
.field Input { width: 1fr; border: none; background: ansi_default; }
.dialog #said { height: auto; margin: 1 0; }
.page {
    width: 100%; height: 1fr; border: round ansi_bright_black; padding: 0 1; background: ansi_default;
}
.keys { width: 100%; height: 1; dock: bottom; background: ansi_default; }
"""
