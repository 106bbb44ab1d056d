select coalesce(current_setting('watcher.direct', true), '') = '1'
