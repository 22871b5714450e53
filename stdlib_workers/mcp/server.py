"""The MCP server over one worker: which tools and resources there are, judged anew for each request.

A function that is registered, changed or gone counts from the next request on, and so do its metadata. Every transport
serves the same object.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mcp.server import NotificationOptions, Server, ServerRequestContext
from mcp.server.models import InitializationOptions
from mcp.shared.exceptions import MCPError
from mcp.types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    ListResourcesResult,
    ListResourceTemplatesResult,
    ListToolsResult,
    PaginatedRequestParams,
    ReadResourceRequestParams,
    ReadResourceResult,
    TextContent,
    TextResourceContents,
    Tool,
    ToolAnnotations,
)

from iii import InvocationError, TriggerRequestInput, Worker, __version__
from stdlib_workers.mcp.calls import call_tool, failure
from stdlib_workers.mcp.catalog import Catalog
from stdlib_workers.mcp.changes import ToolChanges
from stdlib_workers.mcp.cuts import cut, text_of
from stdlib_workers.mcp.introspection import ENGINE_TOOLS
from stdlib_workers.mcp.options import Options
from stdlib_workers.mcp.resources import NoSuchResource, Resources
from stdlib_workers.mcp.tools import FunctionTool, Schemas, input_schema, output_schema, payload_of

Context = ServerRequestContext[Any, Any]

# Tools on one page.
PAGE = 96
MAX_DESCRIPTION = 4 * 1024
# The protocol's code for a resource that is not there.
RESOURCE_NOT_FOUND = -32002


class _TellingServer(Server[Any]):
    """Says to clients of older versions, over whatever transport, that it tells of changed tools."""

    def create_initialization_options(
        self, notification_options: NotificationOptions | None = None, *others: Any, **options: Any
    ) -> InitializationOptions:
        told = notification_options or NotificationOptions(tools_changed=True)
        return super().create_initialization_options(told, *others, **options)


class McpServer:
    """The handlers; `server` is the protocol's end that any transport runs.

    `keeps_connections`: whether the transport has one connection for all requests of a client.
    """

    def __init__(self, worker: Worker, options: Options, *, keeps_connections: bool = False) -> None:
        self._worker = worker
        self._options = options
        self._keeps_connections = keeps_connections
        self._catalog = Catalog(worker, options)
        self.changes = ToolChanges(self._catalog)
        self._resources = Resources(self._catalog.call, options)
        self._engine_tools = ENGINE_TOOLS if options.introspection else {}
        self.server: Server[Any] = _TellingServer(
            "iii",
            version=__version__,
            title="iii",
            instructions=_instructions(options),
            on_list_tools=self.list_tools,
            on_call_tool=self.call_tool,
            on_list_resources=self.list_resources,
            on_list_resource_templates=self.list_templates,
            on_read_resource=self.read_resource,
            on_subscriptions_listen=self.changes.listening,
            # Without it the server lists all tools before each call, for headers that these tools do not use.
            get_tool_input_schema=lambda _: None,
        )

    async def list_tools(self, context: Context, params: PaginatedRequestParams | None) -> ListToolsResult:
        """Return one page of tools; the cursor is the last name of the page before."""
        cursor = (params.cursor if params is not None else None) or ""
        with _errors_of_engine():
            tools = await self._catalog.tools()
            self.changes.note(tools, context.session if self._keeps_connections else None)
            names = sorted(name for name in (*self._engine_tools, *tools) if name > cursor)
            page = names[:PAGE]
            schemas = await self._catalog.schemas([tools[name] for name in page if name in tools])
        shown = []
        for name in page:
            if name in self._engine_tools:
                shown.append(self._engine_tool(name))
            elif (schema := input_schema(schemas[name].payload)) is not None:
                shown.append(_tool(tools[name], schema, output_schema(schemas[name].result)))
        return ListToolsResult(tools=shown, next_cursor=page[-1] if len(names) > PAGE else None)

    async def call_tool(self, context: Context, params: CallToolRequestParams) -> CallToolResult:
        """Call a tool. MCPError for one that there is not, which also is one that the tables do not open."""
        arguments = params.arguments or {}
        if params.name in self._engine_tools:
            try:
                result = await self._engine_tools[params.name].run(self._catalog.call, arguments)
            except InvocationError as error:
                return failure(error)
            return CallToolResult(
                content=[TextContent(type="text", text=cut(text_of(result), self._options.max_result))]
            )
        with _errors_of_engine():
            tool = (await self._catalog.tools()).get(params.name)
            schemas = Schemas() if tool is None else (await self._catalog.schemas([tool]))[tool.name]
        if tool is None or input_schema(schemas.payload) is None:
            raise MCPError(INVALID_PARAMS, f"there is no tool {params.name!r:.80}; tools/list has those there are")
        is_structured = output_schema(schemas.result) is not None
        request: TriggerRequestInput = {
            "function_id": tool.function_id,
            "namespace": tool.namespace,
            "payload": payload_of(schemas.payload, arguments),
            "timeout_ms": self._options.timeout_ms,
        }
        return await call_tool(self._worker, context, request, self._options.max_result, is_structured=is_structured)

    async def list_resources(self, _: Context, _params: PaginatedRequestParams | None) -> ListResourcesResult:
        """Return the resources. MCPError when the state worker does not say which scopes there are."""
        with _errors_of_engine():
            return ListResourcesResult(resources=await self._resources.listed())

    async def list_templates(self, _: Context, _params: PaginatedRequestParams | None) -> ListResourceTemplatesResult:
        """Return the forms of URIs that take a name."""
        return ListResourceTemplatesResult(resource_templates=self._resources.templates())

    async def read_resource(self, _: Context, params: ReadResourceRequestParams) -> ReadResourceResult:
        """Return what a URI stands for. MCPError for one that there is not, or that cannot be read."""
        uri = str(params.uri)
        try:
            with _errors_of_engine():
                value, media_type = await self._resources.read(uri)
        except NoSuchResource:
            text = f"there is no resource {uri!r:.80}; resources/list has those there are"
            raise MCPError(RESOURCE_NOT_FOUND, text) from None
        text = cut(text_of(value), self._options.max_result)
        return ReadResourceResult(contents=[TextResourceContents(uri=uri, mime_type=media_type, text=text)])

    def _engine_tool(self, name: str) -> Tool:
        tool = self._engine_tools[name]
        hints = ToolAnnotations(read_only_hint=True, open_world_hint=False)
        return Tool(name=name, description=tool.description, input_schema=tool.input_schema(), annotations=hints)


@contextmanager
def _errors_of_engine() -> Iterator[None]:
    """Raise an InvocationError of what is listed or read as the protocol's error."""
    try:
        yield
    except InvocationError as error:
        raise MCPError(INTERNAL_ERROR, f"{error.code}: {cut(error.message, MAX_DESCRIPTION)}") from None


def _tool(tool: FunctionTool, schema: dict[str, Any], result: dict[str, Any] | None) -> Tool:
    description = cut(tool.description, MAX_DESCRIPTION)
    shown = Tool(name=tool.name, title=tool.function_id, description=description, input_schema=schema)
    shown.output_schema = result
    return shown


def _instructions(options: Options) -> str:
    """Return what a client is told at its start: what there is, and what iii.toml keeps closed."""
    texts = ["Tools are functions of a project of iii; the title of a tool is the function's id."]
    if options.introspection:
        texts.append("Tools that begin with iii_ show the project itself and the documentation.")
    else:
        texts.append("iii.toml keeps the tools closed that show the project itself (introspection).")
    texts.append(
        "A function is a tool if [workers.mcp.config] names it in `tools`, or its metadata say so (by default "
        "mcp = true), and it has a description and a schema."
    )
    return " ".join(texts)
