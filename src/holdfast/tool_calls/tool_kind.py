"""The kind of a tool, from its name in any of the common agents."""

from __future__ import annotations

import functools
from typing import Literal

__all__ = ["ToolKind", "bare_name", "tool_kind"]

ToolKind = Literal[
    "read", "search", "edit", "plan", "shell", "sub_agent", "web", "ask_user", "other"
]

# Names without case, separators and prefixes.
_NAMES: dict[ToolKind, str] = {
    "read": """read readfile readfiles readmanyfiles view viewfile viewimage viewfileoutline
        viewcodeitem cat openfile getfile notebookread readmcpresource readmediafile lsp diagnostics
        getdiagnostics fileread readtextfile readmultiplefiles skill toolsearch""",
    "search": """grep glob ls list listdir listfiles listdirectory find findfiles filesearch
        grepsearch ripgrep search searchfiles searchfilecontent searchfilesbyname codebasesearch
        searchcode searchcodebase semanticsearch findbyname listcodedefinitionnames codesearch
        searchtext searchtool""",
    "edit": """edit write multiedit notebookedit editfile writefile applypatch patch applydiff
        replace replacefilecontent strreplace strreplaceeditor strreplacebasededittool
        writetofile createfile deletefile searchreplace insertcontent searchandreplace editor
        insertedit replaceinfile editnotebook filewrite fileedit multireplacefilecontent""",
    "plan": """todowrite todoread todo updateplan taskcreate taskupdate tasklist taskget
        tasktracker updatetodolist writetodos managetodolist think switchmode enterplanmode
        updatetopic savememory memory marktopic markchapter""",
    "shell": """bash shell sh exec execcommand runcommand runcommands localshell localshellcall
        executecommand executebash runshellcommand runterminalcmd runinterminal terminal
        containerexec powershell pwsh cmd writestdin bashoutput taskoutput killshell killbash
        shellcommand unifiedexec runinteractiveterminalcommand computerterminal ipython
        executeipythoncell pythoninterpreter python code codeinterpreter executecode
        runcode commandstatus getterminaloutput wait""",
    "sub_agent": """task agent subagent spawnagent delegate delegatetask newtask runsubagent
        dispatchagent spawntask waitagent codebaseinvestigator oracle sendmessage handoff
        collab collaboration runagent calltask""",
    "web": """webfetch websearch fetch browser browse browseraction openurl googlewebsearch
        searchweb readurlcontent fetchurl fetchwebpage websearchpreview webrun httprequest
        browsersearch browseropen browserfind browsernavigate navigate""",
    "ask_user": """askuserquestion askuser askquestion question askfollowupquestion
        requestuserinput userinput askhuman humaninput asktheuser exitplanmode
        attemptcompletion planmoderespond planexit clarify confirmwithuser notifyuser""",
}
_KIND_OF: dict[str, ToolKind] = {
    name: kind for kind, names in _NAMES.items() for name in names.split()
}


@functools.lru_cache(maxsize=1024)
def tool_kind(name: str) -> ToolKind:
    """Return the kind of the tool called `name`; "other" for unknown names. Pure."""
    return _KIND_OF.get(bare_name(name), "other")


def bare_name(name: str) -> str:
    """Return a tool's name without case, separators and prefixes. Pure.

    Of an MCP tool (`mcp__server__tool`) or a namespaced one (`functions.tool`) the last part
    counts.
    """
    last = name.rsplit("__", 1)[-1].rsplit(".", 1)[-1].rsplit("/", 1)[-1]
    return "".join(c for c in last.casefold() if c.isalnum())
