"""Traces over OTLP: the port `engine.ports.tracing`, implemented with the OpenTelemetry SDK.

The SDK is an extra, and slow to import: only `extproc.tracing.otel` and `.export` know it, and they are
imported where the settings ask for traces.
"""
