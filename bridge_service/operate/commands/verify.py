"""`verify`: accounts for every message to a bot."""

from dataclasses import asdict

from bridge_service.machine.ledger import open_ledger
from bridge_service.operate.output import Output, coloured, counted
from bridge_service.settings import Settings


def run(settings: Settings, output: Output) -> bool:
    """Return whether no message is unaccounted for or doubled and no disclosure is missing, in the app's tables."""
    with open_ledger(settings.database_url, "verify") as ledger:
        # First, because `verify` fails if a table was renamed, and these words say why.
        astray = [table.fault for table in ledger.installed().tables.values() if table.fault]
        for words in astray:
            output.complain(f"the bridge is not bound to the app's present tables: {words}; `check` says what to do")
        accounts = ledger.verify(settings.retention_days)
    numbers = asdict(accounts)
    del numbers["faults"], numbers["undisclosed_in"]
    output.document(numbers)
    faulty = {"unaccounted", "doubled", "undisclosed"}
    cells = [coloured(number, good=not number) if name in faulty else number for name, number in numbers.items()]
    output.table(list(numbers), [cells])
    for fault in accounts.faults:
        output.complain(f"{fault.message_id}: {fault.fault}")
    for match in accounts.undisclosed_in:
        output.complain(f"{match}: the bot speaks in this match, and its disclosure is not there")
    if accounts.unaccounted:
        remedy = "`check` looks for the cause, `replay` captures what was missed"
        output.complain(f"unaccounted for: {counted(accounts.unaccounted, 'message')}; {remedy}")
    if accounts.doubled:
        output.complain(f"answered twice: {counted(accounts.doubled, 'message')}; `why` tells each one's story")
    if accounts.undisclosed:
        output.complain(f"without the disclosure that was due: {counted(accounts.undisclosed, 'conversation')}")
    return not (accounts.unaccounted or accounts.doubled or accounts.undisclosed or astray)
