"""What Schemathesis cannot know by itself: lines of JSON go out as the text that they are."""

import schemathesis

schemathesis.serializer.alias("application/x-ndjson", "text/plain")
