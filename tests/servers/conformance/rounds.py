"""The tools that need the client's answers before theirs: multi-round calls in the modern era (SEP-2322)."""

from __future__ import annotations

import mcp_types as types
from asking import Call, elicitation, filled_in, said, sampling
from tools import TEXT, tool

CONFIRMATION = {"type": "boolean"}


def ask_name() -> types.ElicitRequest:
    return elicitation("What is your name?", ["name"], name=TEXT)


@tool("Asks the user's name")
async def test_input_required_result_elicitation(call: Call) -> str:
    answers = await call.ask(user_name=ask_name())
    return f"Hello, {filled_in(answers['user_name'], 'name')}!"


@tool("Asks the client's model for a capital")
async def test_input_required_result_sampling(call: Call) -> str:
    answers = await call.ask(capital_question=sampling("What is the capital of France?"))
    return f"The model says: {said(answers['capital_question'])}"


@tool("Asks for the client's roots")
async def test_input_required_result_list_roots(call: Call) -> str:
    answers = await call.ask(client_roots=types.ListRootsRequest(params=types.RequestParams()))
    return f"The roots are: {', '.join(root['uri'] for root in answers['client_roots']['roots'])}"


@tool("Asks the user to confirm, and recognises the state that it gave out")
async def test_input_required_result_request_state(call: Call) -> str:
    answers = await call.ask(remember=True, confirm=elicitation("Please confirm", ["ok"], ok=CONFIRMATION))
    return f"state-ok, and the user says {filled_in(answers['confirm'], 'ok')}"


@tool("Asks user, model and client at once")
async def test_input_required_result_multiple_inputs(call: Call) -> str:
    answers = await call.ask(
        remember=True,
        user_name=ask_name(),
        greeting=sampling("Generate a greeting", 50),
        client_roots=types.ListRootsRequest(params=types.RequestParams()),
    )
    name, roots = filled_in(answers["user_name"], "name"), answers["client_roots"]["roots"]
    return f"{said(answers['greeting'])} {name}, with {len(roots)} roots"


@tool("Asks the user twice, the second time knowing the first answer")
async def test_input_required_result_multi_round(call: Call) -> str:
    first = await call.ask(remember=True, step1=elicitation("Step 1: What is your name?", ["name"], name=TEXT))
    second = await call.ask(
        remember=True, step2=elicitation("Step 2: What is your favorite color?", ["color"], color=TEXT)
    )
    return f"{filled_in(first['step1'], 'name')} likes {filled_in(second['step2'], 'color')}."


@tool("Asks the user to confirm, and refuses a state that it did not give out")
async def test_input_required_result_tampered_state(call: Call) -> str:
    answers = await call.ask(remember=True, confirm=elicitation("Please confirm", ["ok"], ok=CONFIRMATION))
    return f"The state was whole, and the user says {filled_in(answers['confirm'], 'ok')}"


@tool("Asks whatever the client can answer")
async def test_input_required_result_capabilities(call: Call) -> str:
    questions = {"elicitation": ask_name(), "sampling": sampling("What is your name?")}
    allowed = {name: question for name, question in questions.items() if call.declares(name)}
    if not allowed:
        return "There is nothing that the client could answer."
    return f"The client answered: {', '.join(sorted(await call.ask(**allowed)))}"
