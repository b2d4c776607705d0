"""A LangGraph workflow: a plan, two writers at once, and an editor that may ask for another round.

holdfast serve MODEL &
python examples/langgraph_workflow.py http://127.0.0.1:8000 [TOKEN_OF_THE_ROUTES]
"""

from __future__ import annotations

import operator
import sys
from typing import Annotated, Any, TypedDict

from langgraph.graph import END, START, StateGraph
from openai import OpenAI

from holdfast.client import attach
from holdfast.client.langgraph import graph_workflow

ROUNDS = 2


class Article(TypedDict):
    """What the nodes read and add to."""

    texts: Annotated[list[str], operator.add]
    rounds: int


def main(url: str, token: str | None = None) -> None:
    client = attach(OpenAI(base_url=f"{url}/v1", api_key="none"), token=token)
    model = client.models.list().data[0].id

    def ask(instructions: str, article: Article) -> str:
        messages: list[Any] = [{"role": "system", "content": instructions}]
        messages += [{"role": "user", "content": text} for text in article["texts"]]
        answer = client.chat.completions.create(model=model, messages=messages, max_tokens=24)
        return answer.choices[0].message.content or ""

    graph: StateGraph[Any, Any, Any, Any] = StateGraph(Article)
    graph.add_node("plan", lambda a: {"texts": [ask("You plan articles.", a)]})
    graph.add_node("intro", lambda a: {"texts": [ask("You write introductions.", a)]})
    graph.add_node("body", lambda a: {"texts": [ask("You write the main part.", a)]})
    graph.add_node("edit", lambda a: {"texts": [ask("You edit.", a)], "rounds": a["rounds"] + 1})
    graph.add_edge(START, "plan").add_edge("plan", "intro").add_edge("plan", "body")
    graph.add_edge(["intro", "body"], "edit")
    graph.add_conditional_edges(
        "edit", lambda a: END if a["rounds"] >= ROUNDS else "plan", ["plan", END]
    )
    app = graph.compile()
    # Each node is an agent of one workflow, and the engine knows which one is next.
    with graph_workflow(app):
        article = app.invoke({"texts": ["An article about caches."], "rounds": 0})
    print(len(article["texts"]), "texts; the last:", article["texts"][-1])


if __name__ == "__main__":
    main(*sys.argv[1:])
